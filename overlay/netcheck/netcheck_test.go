package netcheck

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"weft/overlay/internal/gather"
	"weft/overlay/internal/path"
	"weft/overlay/portmap"
	"weft/overlay/status"
)

type gatherer func() (*gather.Snapshot, error)

func (g gatherer) Gather(context.Context) (*gather.Snapshot, error) { return g() }

var (
	outside4 = netip.MustParseAddrPort("198.51.100.7:41641")
	outside6 = netip.MustParseAddrPort("[2001:db8::7]:41641")
	server4  = netip.MustParseAddrPort("192.0.2.1:3478")
)

func TestNetcheckOfTheNode(t *testing.T) {
	snap := &gather.Snapshot{
		Candidates: []path.Candidate{{Addr: outside4, Type: path.TypeSTUN}},
		IPv4:       gather.Family{Mapping: path.MappingHard, Local: true, UDP: true, Seen: outside4, Asked: 3, Answered: 2, Addresses: 2},
		Answers: []gather.Answer{
			{Server: "a.example:3478", Err: "the name was not found"},
			{Server: "b.example:3478", Addr: server4, Seen: outside4, RTT: 9 * time.Millisecond},
			{Server: "c.example:3478", Addr: server4, Seen: outside4, RTT: 2 * time.Millisecond},
		},
		Complete: true,
	}
	n := Run(t.Context(), []status.Relay{{Name: "r", URLs: []string{"https://127.0.0.1:1"}}}, gatherer(func() (*gather.Snapshot, error) { return snap, nil }))
	var servers []string
	for _, r := range n.STUN {
		servers = append(servers, r.Server)
	}
	if !slices.Equal(servers, []string{"c.example:3478", "b.example:3478", "a.example:3478"}) || *n.STUN[0].RTTms != 2 || n.STUN[0].Address != server4.String() {
		t.Errorf("stun: %+v", n.STUN)
	}
	if !n.UDP.Works || !n.UDP.Varies || n.UDP.Endpoint != outside4.String() || n.IPv4.Mapping != "hard" || n.IPv6.Mapping != "unknown" {
		t.Errorf("%+v", n)
	}
	if !slices.Equal(n.Candidates, []CandidateCheck{{Addr: outside4.String(), Type: "stun"}}) {
		t.Errorf("candidates: %+v", n.Candidates)
	}
	// All fields exist, even empty ones.
	b, err := json.Marshal(Run(t.Context(), nil, gatherer(func() (*gather.Snapshot, error) { return nil, errors.New("down") })))
	if err != nil {
		t.Fatal(err)
	}
	for _, field := range []string{"schema", "links", "udp", "when", "stun", "ipv4", "ipv6", "port_mapping", "candidates", "direct"} {
		if !strings.Contains(string(b), `"`+field+`":`) {
			t.Errorf("no %s in %s", field, b)
		}
	}
	if strings.Contains(string(b), "null") {
		t.Errorf("%s", b)
	}
}

// Each result has one sentence for what it is and one for what it means.
func TestNetcheckWords(t *testing.T) {
	fam := func(m path.Mapping, addresses int) gather.Family {
		return gather.Family{Mapping: m, Local: true, UDP: m != path.MappingBlocked, Asked: 2, Seen: outside4, Addresses: addresses}
	}
	gw := netip.MustParseAddr("192.168.1.1")
	tried := time.Unix(1, 0)
	for _, tt := range []struct {
		name             string
		s                gather.Snapshot
		four, pm, direct string
	}{
		{"no NAT", gather.Snapshot{IPv4: fam(path.MappingNone, 1)}, "no NAT", "not asked for", "nearly every peer: this device has a public"},
		{"easy", gather.Snapshot{IPv4: fam(path.MappingEasy, 2)}, "for every destination", "", "nearly every peer; with those behind a hard NAT"},
		{"easy by ports", gather.Snapshot{IPv4: fam(path.MappingEasy, 1)}, "tested with two ports of one STUN address only", "", "nearly every peer"},
		{"hard", gather.Snapshot{IPv4: fam(path.MappingHard, 2)}, "another outside port", "", "a port mapping (UPnP or NAT-PMP"},
		{"hard, IPv6", gather.Snapshot{IPv4: fam(path.MappingHard, 2), IPv6: fam(path.MappingNone, 1)}, "hard NAT", "", "every peer that has IPv6, and by IPv4"},
		{"hard, mapped", gather.Snapshot{IPv4: fam(path.MappingHard, 2), PortMap: portmap.Status{Gateway: gw, Kind: portmap.KindPCP, External: outside4, Tried: tried}}, "", "PCP by 192.168.1.1; seen from outside this device is 198.51.100.7:41641", "at a mapped port"},
		{"hard, double NAT", gather.Snapshot{IPv4: fam(path.MappingHard, 2), PortMap: portmap.Status{Gateway: gw, Kind: portmap.KindUPnP, External: outside4, Useless: true, Tried: tried}}, "", "UPnP by 192.168.1.1, but that gateway is behind another NAT", "only with peers"},
		{"no port mapping", gather.Snapshot{IPv4: fam(path.MappingEasy, 2), PortMap: portmap.Status{Err: "the gateway refuses", Tried: tried}}, "", "none: the gateway refuses", ""},
		{"one address", gather.Snapshot{IPv4: fam(path.MappingUnknown, 1)}, "unknown kind: there is only one STUN address", "", "one STUN address cannot tell"},
		{"one address, IPv6", gather.Snapshot{IPv4: fam(path.MappingUnknown, 1), IPv6: fam(path.MappingNone, 1)}, "", "", "every peer that has IPv6, and likely"},
		{"blocked", gather.Snapshot{IPv4: fam(path.MappingBlocked, 0)}, "UDP is blocked", "", "no direct paths except with peers in the same network"},
		{"blocked, mapped", gather.Snapshot{IPv4: fam(path.MappingBlocked, 0), PortMap: portmap.Status{External: outside4, Tried: tried}}, "", "", "unlikely"},
		{"IPv6 only", gather.Snapshot{IPv6: fam(path.MappingNone, 1)}, "no IPv4 address", "", "with peers that have IPv6; others"},
		{"no address asked", gather.Snapshot{IPv4: gather.Family{Local: true}}, "no STUN server is reachable over IPv4", "", ""},
	} {
		tt.s.Answers = []gather.Answer{{Server: "x"}}
		if got := familyCheck("IPv4", tt.s.IPv4, true).Text; !strings.Contains(got, tt.four) || strings.Contains(got, "\n") {
			t.Errorf("%s: IPv4: %s", tt.name, got)
		}
		if got := portMapCheck(tt.s.PortMap); !strings.Contains(got.Text, tt.pm) || got.Asked != !tt.s.PortMap.Tried.IsZero() {
			t.Errorf("%s: port mapping: %+v", tt.name, got)
		}
		if got := direct(&tt.s, true); !strings.Contains(got, tt.direct) || got == "" {
			t.Errorf("%s: direct: %s", tt.name, got)
		}
	}
	if got := direct(&gather.Snapshot{}, true); !strings.Contains(got, "no relay has a STUN address") {
		t.Error(got)
	}
	if f := familyCheck("IPv6", gather.Family{Local: true, UDP: true, Mapping: path.MappingNone, Seen: outside6}, true); f.Endpoint != outside6.String() || f.Mapping != "none" {
		t.Errorf("%+v", f)
	}
}

// If the server and the relay are down, no answer by UDP says nothing about UDP.
func TestSilenceOfADeadServer(t *testing.T) {
	blocked := gather.Family{Local: true, Asked: 1, Mapping: path.MappingBlocked}
	if c := familyCheck("IPv4", blocked, false); strings.Contains(c.Text, "blocked") || c.Mapping != "unknown" {
		t.Errorf("%+v", c)
	}
	if got := direct(&gather.Snapshot{IPv4: blocked, Answers: []gather.Answer{{Server: "x"}}}, false); strings.Contains(got, "blocked") {
		t.Error(got)
	}
}

// The reason of a connection error does not repeat the address.
func TestReason(t *testing.T) {
	refused := &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
	for want, err := range map[string]error{
		"connection refused": refused,
		"no such host":       &net.DNSError{Err: "no such host", Name: "weft.example", Server: "192.0.2.1:53"},
		"no answer in time":  context.DeadlineExceeded,
		"x":                  errors.New("x"),
	} {
		if got := reason(err); got != want {
			t.Errorf("%v: %q, want %q", err, got, want)
		}
	}
}

func TestLinksInOrder(t *testing.T) {
	f := func(v float64) *float64 { return &v }
	for _, tt := range []struct {
		a, b *float64
		want int
	}{{nil, nil, 0}, {nil, f(1), 1}, {f(1), nil, -1}, {f(1), f(2), -1}} {
		if got := byRTT(tt.a, tt.b); got != tt.want {
			t.Errorf("%v, %v: %d", tt.a, tt.b, got)
		}
	}
}
