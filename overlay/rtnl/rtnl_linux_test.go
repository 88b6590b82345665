package rtnl

import (
	"errors"
	"net/netip"
	"slices"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// What needs root is tested in scripts/e2e (TestTUNInterface), with a kernel interface.
func TestLoopback(t *testing.T) {
	c, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	lo, err := c.InterfaceByName("lo")
	if err != nil || lo.Index == 0 || lo.Name != "lo" || !lo.Up || lo.Kind != "" {
		t.Fatalf("%+v, %v", lo, err)
	}
	if again, err := c.InterfaceByIndex(lo.Index); err != nil || again != lo {
		t.Errorf("by index: %+v, %v", again, err)
	}
	if _, err := c.InterfaceByName("no-such"); !errors.Is(err, unix.ENODEV) {
		t.Errorf("no such interface: %v", err)
	}
	self := netip.MustParseAddr("127.0.0.1")
	addrs, err := c.Addrs(lo.Index, unix.AF_INET)
	if err != nil || !slices.Contains(addrs, Addr{self, self, 8}) {
		t.Errorf("addresses %v, %v", addrs, err)
	}
	routes, err := c.Routes(unix.AF_INET)
	want := Route{Dst: netip.PrefixFrom(self, 32), Src: self, Interface: lo.Index, Table: unix.RT_TABLE_LOCAL,
		Type: unix.RTN_LOCAL, Scope: unix.RT_SCOPE_HOST, Protocol: unix.RTPROT_KERNEL}
	if err != nil || !slices.Contains(routes, want) {
		t.Errorf("routes %+v, %v; want %+v among them", routes, err, want)
	}
	if err := c.SetMTU(1<<30, 1280); !errors.Is(err, unix.ENODEV) && !errors.Is(err, unix.EPERM) {
		t.Errorf("MTU of no interface: %v", err)
	}
}

func FuzzRoute(f *testing.F) {
	f.Add(routeBody(Route{Dst: netip.MustParsePrefix("10.0.0.0/8"), Src: netip.MustParseAddr("10.1.2.3"), Interface: 3, Table: 1000, Metric: 5}))
	f.Add(routeBody(Route{Dst: netip.MustParsePrefix("::/0"), Interface: 3}))
	f.Fuzz(func(t *testing.T, b []byte) {
		var m syscall.NetlinkMessage
		m.Header.Type, m.Data = unix.RTM_NEWROUTE, b
		for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
			r, ok := parseRoute(m, family)
			if !ok {
				continue
			}
			m := m
			m.Data = routeBody(r)
			if again, ok := parseRoute(m, family); !ok || again != r {
				t.Fatalf("%+v became %+v", r, again)
			}
		}
	})
}
