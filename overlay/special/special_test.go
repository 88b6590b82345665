package special

import (
	"net/netip"
	"testing"
)

func TestKind(t *testing.T) {
	for _, c := range []struct {
		addr     string
		special  bool
		embedded string
	}{
		{"127.0.0.1", true, ""},
		{"127.255.0.9", true, ""},
		{"0.0.0.0", true, ""},
		{"0.1.2.3", true, ""},
		{"169.254.169.254", true, ""},
		{"224.0.0.251", true, ""},
		{"255.255.255.255", true, ""},
		{"::ffff:127.0.0.1", true, "127.0.0.1"},
		{"::", true, "0.0.0.0"},
		{"::1", true, "0.0.0.1"},
		{"fe80::1%eth0", true, ""},
		{"fd00:ec2::254", true, ""},
		{"ff02::1", true, ""},
		{"64:ff9b::7f00:1", false, "127.0.0.1"},
		{"64:ff9b:1::a9fe:a9fe", false, "169.254.169.254"},
		{"2002:7f00:1::", false, "127.0.0.1"},
		{"::7f00:1", false, "127.0.0.1"},
		{"::ffff:0:7f00:1", false, "127.0.0.1"},
		{"192.168.1.5", false, ""},
		{"203.0.113.7", false, ""},
		{"2001:db8::1", false, ""},
		{"fd12::1", false, ""},
	} {
		ip := netip.MustParseAddr(c.addr)
		v4, ok := Embedded(ip)
		if got := Kind(ip); (got != "") != c.special || ok != (c.embedded != "") || ok && v4.String() != c.embedded {
			t.Errorf("%s: %q, contains %v %v", c.addr, got, v4, ok)
		}
	}
}
