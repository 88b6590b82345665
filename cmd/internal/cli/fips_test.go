package cli

import (
	"strings"
	"testing"

	"weft/overlay/fips"
)

// A heading with nothing under it would read as cut off.
func TestFIPSHeadings(t *testing.T) {
	use := func(inside bool) fips.Use { return fips.Use{What: "links", Algorithms: "TLS 1.3", Inside: inside} }
	for _, c := range []struct {
		uses []fips.Use
		want string
	}{
		{nil, "inside the module:\n  nothing\noutside the module:\n  nothing\n"},
		{[]fips.Use{use(true)}, "inside the module:\n  links: TLS 1.3\noutside the module:\n  nothing\n"},
		{[]fips.Use{use(false)}, "inside the module:\n  nothing\noutside the module:\n  links: TLS 1.3\n"},
	} {
		var out strings.Builder
		if err := PrintFIPS(&out, "weft", fips.Report{Uses: c.uses}, false); err != nil || !strings.HasSuffix(out.String(), c.want) {
			t.Errorf("%v\n%s", err, out.String())
		}
	}
}
