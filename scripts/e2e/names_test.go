//go:build e2e

package e2e

import (
	"regexp"
	"strings"
	"testing"
	"time"

	"weft/scripts/e2e/lab"
)

// dig queries the node's own resolver.
func dig(n *lab.Node, args ...string) lab.Result {
	return n.Host.Run(lab.Nobody, append([]string{"dig", "+tries=1", "+time=3", "@127.0.0.1", "-p", "5335"}, args...)...)
}

func testDNS(t *testing.T, m *lab.Mesh) {
	st := m.Device.Status().Self
	self := m.Laptop.Status().Self
	soa := `(?m)^weft\.internal\.\s+\d+\s+IN\s+SOA\s`
	m.Until(20*time.Second, "the device has its name back, as an earlier part left it", func() bool {
		return !strings.Contains(dig(m.Laptop, "kitchen-pi.weft.internal", "A").Out, "CNAME")
	})
	for _, c := range []struct {
		name   string
		args   []string
		status string
		want   []string // regular expressions
		not    string
	}{
		{"A", []string{"kitchen-pi.weft.internal", "A"}, "NOERROR", []string{`kitchen-pi\.weft\.internal\.\s+\d+\s+IN\s+A\s+` + regexp.QuoteMeta(st.IPv4) + `\n`}, ""},
		{"A over TCP", []string{"+tcp", "kitchen-pi.weft.internal", "A"}, "NOERROR", []string{regexp.QuoteMeta(st.IPv4) + `\n`}, ""},
		{"upper case", []string{"KITCHEN-PI.weft.INTERNAL", "A"}, "NOERROR", []string{regexp.QuoteMeta(st.IPv4) + `\n`}, ""},
		{"AAAA", []string{"kitchen-pi.weft.internal", "AAAA"}, "NOERROR", []string{`IN\s+AAAA\s+` + regexp.QuoteMeta(st.IPv6) + `\n`}, ""},
		{"self", []string{"laptop.weft.internal", "A"}, "NOERROR", []string{regexp.QuoteMeta(self.IPv4) + `\n`}, ""},
		{"PTR of IPv4", []string{"-x", st.IPv4}, "NOERROR", []string{`IN\s+PTR\s+kitchen-pi\.weft\.internal\.\n`}, ""},
		{"PTR of IPv6", []string{"-x", st.IPv6}, "NOERROR", []string{`IN\s+PTR\s+kitchen-pi\.weft\.internal\.\n`}, ""},
		{"NXDOMAIN", []string{"nobody.weft.internal", "A"}, "NXDOMAIN", []string{soa}, `IN\s+A\s+\d`},
		{"NODATA", []string{"kitchen-pi.weft.internal", "MX"}, "NOERROR", []string{soa, `ANSWER: 0,`}, ""},
		{"apex", []string{"weft.internal", "SOA"}, "NOERROR", []string{soa}, ""},
		{"PTR of nobody", []string{"-x", "100.127.255.250"}, "NXDOMAIN", []string{`IN\s+SOA\s`}, ""},
		{"upstream", []string{"www.example.test", "A"}, "NOERROR", []string{`IN\s+A\s+203\.0\.113\.1\n`}, ""},
		{"upstream NODATA", []string{"www.example.test", "AAAA"}, "NOERROR", []string{`IN\s+SOA\s`}, ""},
		{"upstream NXDOMAIN", []string{"no.example.test", "A"}, "NXDOMAIN", nil, ""},
		{"upstream over TCP", []string{"+tcp", "www.example.test", "A"}, "NOERROR", []string{`203\.0\.113\.1\n`}, ""},
	} {
		r := dig(m.Laptop, c.args...)
		if r.Code != 0 || !strings.Contains(r.Out, "status: "+c.status+",") {
			t.Errorf("%s: want %s: %v", c.name, c.status, r)
			continue
		}
		for _, w := range c.want {
			if !regexp.MustCompile(w).MatchString(r.Out) {
				t.Errorf("%s: no %q: %v", c.name, w, r)
			}
		}
		if c.not != "" && regexp.MustCompile(c.not).MatchString(r.Out) {
			t.Errorf("%s: %q is there: %v", c.name, c.not, r)
		}
	}
	// The resolver does not answer the household's network.
	r := m.LaptopHome.Router.Run(lab.Nobody, "dig", "+tries=1", "+time=1", "@192.168.1.2", "-p", "5335", "kitchen-pi.weft.internal")
	if r.Code == 0 {
		t.Errorf("the resolver answers the neighbours: %v", r)
	}
}
