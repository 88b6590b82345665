package gather

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"weft/overlay/internal/path"
)

func TestUsable(t *testing.T) {
	l := func(name, addr string, flags ...string) Local {
		return Local{Name: name, Addr: netip.MustParseAddr(addr), Temporary: slices.Contains(flags, "temporary"), Deprecated: slices.Contains(flags, "deprecated")}
	}
	all := []Local{
		l("lo", "127.0.0.1"), l("lo", "::1"),
		l("docker0", "172.17.0.1"), l("br-0123456789ab", "172.18.0.1"), l("tailscale0", "100.101.102.103"),
		l("eth0", "fe80::1%eth0"), l("eth0", "169.254.3.4"),
		l("eth0", "2001:db8::aaaa"), l("eth0", "2001:db8::bbbb"), l("eth0", "2001:db8::cccc", "temporary"),
		l("eth0", "2001:db8::dddd", "temporary", "deprecated"), l("eth0", "fd12:3456::1"),
		l("eth0", "192.168.1.10"), l("wlan0", "::ffff:10.0.0.3"), l("br-lan", "192.168.7.1"),
		l("weft0", "100.64.0.9"), l("weft0", "fd77::9"),
		l("eth1", "224.0.0.1"), l("eth1", "0.0.0.0"), l("eth1", "192.168.1.10"), {Name: "eth1"},
	}
	refuse := func(a netip.Addr) bool {
		return a == netip.MustParseAddr("100.64.0.9") || a == netip.MustParseAddr("fd77::9")
	}
	var got []string
	for _, a := range usable(all, refuse) {
		got = append(got, a.String())
	}
	want := []string{"192.168.1.10", "10.0.0.3", "192.168.7.1", "2001:db8::cccc", "2001:db8::aaaa", "fd12:3456::1", "172.17.0.1", "172.18.0.1", "100.101.102.103"}
	if !slices.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}

func TestCandidatesAreBounded(t *testing.T) {
	var all []Local
	for i := range 5000 {
		all = append(all, Local{Name: "eth0", Addr: netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})})
		all = append(all, Local{Name: "eth0", Addr: netip.MustParseAddr(fmt.Sprintf("2001:db8:%x::1", i+1))})
	}
	hosts := usable(all, nil)
	if len(hosts) != MaxCandidates {
		t.Errorf("%d addresses", len(hosts))
	}
	var with []netip.AddrPort
	for _, a := range hosts {
		with = append(with, netip.AddrPortFrom(a, 7))
	}
	manual := netip.MustParseAddrPort("203.0.113.9:1")
	got := candidates([]netip.AddrPort{manual, manual, {}}, testStatus, with[:2], with, nil)
	if len(got) != MaxCandidates || got[0].Addr != manual || got[1].Type != path.TypeHost || got[1].Addr != with[0] {
		t.Errorf("%d candidates: %v", len(got), got)
	}
}

// The result for the kernel's list has only possible candidates.
func TestInterfaces(t *testing.T) {
	all, err := interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range usable(all, nil) {
		if !a.IsGlobalUnicast() {
			t.Errorf("%s", a)
		}
	}
}
