package status

import (
	"strings"
	"testing"
)

func TestCleanName(t *testing.T) {
	for in, want := range map[string]string{
		"kitchen-pi": "kitchen-pi", "Kitchen-Pi.weft.internal.": "Kitchen-Pi.weft.internal.", "100.64.0.2": "100.64.0.2",
		"Küche": "xn--kche-0ra", "KÜCHE.weft.internal": "xn--kche-0ra.weft.internal", " Küche ": "xn--kche-0ra", "xn--kche-0ra": "xn--kche-0ra",
		"fd00::1": "fd00::1", "[fd00::1]": "fd00::1", "fe80::1%eth0": "fe80::1%eth0",
		"": "", " ": "", "-x": "", "a b": "", "a;b": "", "ü;b": "", "[kitchen-pi]": "", "[fd00::1": "", "fd00::1]": "", "\xff": "", "a\nb": "", "[-oProxyCommand=x:]": "",
		strings.Repeat("a", 256): "", strings.Repeat("ü", 300): "",
	} {
		got, err := CleanName(in)
		if got != want || (err == nil) != (want != "") || err != nil && (KindOf(err) != KindUsage || strings.ContainsAny(err.Error(), "\n\xff")) {
			t.Errorf("%q: %q, %v, want %q", in, got, err, want)
		}
	}
}
