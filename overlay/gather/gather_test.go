package gather

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"weft/overlay/overlaytest"
	"weft/overlay/path"
	"weft/overlay/stun"
)

// node is a gatherer on a host of the internet in memory.
type node struct {
	*Gatherer
	host  *overlaytest.Host
	conn  net.PacketConn
	port  uint16
	sends int
	snaps []*Snapshot
}

func newNode(t *testing.T, h *overlaytest.Host, change func(*Config)) *node {
	t.Helper()
	conn, err := h.ListenPacket("udp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	n := &node{host: h, conn: conn, port: uint16(conn.LocalAddr().(*net.UDPAddr).Port)}
	cfg := Config{
		Send: func(b []byte, to netip.AddrPort) error {
			n.sends++
			_, err := conn.WriteTo(b, net.UDPAddrFromAddrPort(to))
			return err
		},
		Ports:   func() (v4, v6 uint16) { return n.port, n.port },
		Changed: func(s *Snapshot) { n.snaps = append(n.snaps, s) },
		Interfaces: func() ([]Local, error) {
			var out []Local
			for _, a := range h.Addrs() {
				out = append(out, Local{Name: "eth0", Addr: a})
			}
			return out, nil
		},
		Resolve: func(context.Context, string) ([]netip.Addr, error) { return nil, errors.New("no such host") },
	}
	if change != nil {
		change(&cfg)
	}
	n.Gatherer = New(cfg)
	n.Start()
	t.Cleanup(func() {
		n.Close()
		conn.Close()
	})
	go func() {
		buf := make([]byte, 1500)
		for {
			k, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			n.STUN(buf[:k], from.(*net.UDPAddr).AddrPort())
		}
	}()
	return n
}

// stunServer answers on UDP port 3478 of h, and 3479.
func stunServer(t *testing.T, h *overlaytest.Host) {
	t.Helper()
	for _, port := range []string{":3478", ":3479"} {
		conn, err := h.ListenPacket("udp", port)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		go func() {
			s := stun.NewServer(nil)
			buf := make([]byte, 1500)
			for {
				k, from, err := conn.ReadFrom(buf)
				if err != nil {
					return
				}
				if out := s.Handle(buf[:k], from.(*net.UDPAddr).AddrPort(), time.Now()); out != nil {
					conn.WriteTo(out, from)
				}
			}
		}()
	}
}

func types(s *Snapshot) (out []path.Type) {
	for _, c := range s.Candidates {
		out = append(out, c.Type)
	}
	return out
}

// Every kind of NAT, with two relays, two ports of one relay, and one.
func TestMappings(t *testing.T) {
	two := []string{"192.0.2.1:3478", "192.0.2.2:3478"}
	ports := []string{"192.0.2.1:3478", "192.0.2.1:3479"}
	one := two[:1]
	for _, tt := range []struct {
		kind    overlaytest.Kind
		servers []string
		want    path.Mapping
	}{
		{overlaytest.NoNAT, two, path.MappingNone},
		{overlaytest.NoNAT, one, path.MappingNone},
		{overlaytest.FullCone, two, path.MappingEasy},
		{overlaytest.AddressRestricted, ports, path.MappingEasy},
		{overlaytest.PortRestricted, two, path.MappingEasy},
		{overlaytest.PortRestricted, one, path.MappingUnknown},
		{overlaytest.Symmetric, two, path.MappingHard},
		{overlaytest.Symmetric, ports, path.MappingHard},
		{overlaytest.Symmetric, one, path.MappingUnknown},
		// The socket's own port is free: for a peer this is an easy one.
		{overlaytest.SymmetricPreserving, two, path.MappingEasy},
		{overlaytest.UDPBlocked, two, path.MappingBlocked},
	} {
		t.Run(tt.kind.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				in := overlaytest.New(1)
				defer in.Close()
				stunServer(t, in.Host("relay1", "192.0.2.1"))
				stunServer(t, in.Host("relay2", "192.0.2.2"))
				home := in.NAT("home", tt.kind, "198.51.100.7")
				addr := "192.168.1.10"
				if tt.kind == overlaytest.NoNAT {
					addr = "198.51.100.10"
				}
				n := newNode(t, home.Host("pi", addr), nil)
				defer n.Close()
				defer n.conn.Close()
				n.SetServers(tt.servers)
				n.Want()
				start := time.Now()
				synctest.Wait()
				if got := n.Snapshot().Candidates; len(got) == 0 || got[len(got)-1].Addr != netip.MustParseAddrPort(addr+":"+itoa(n.port)) {
					t.Errorf("candidates at once: %v", got)
				}
				time.Sleep(5 * time.Second)
				synctest.Wait()
				s := n.Snapshot()
				if s.IPv4.Mapping != tt.want || s.NAT().IPv4 != tt.want || s.IPv6.Mapping != path.MappingUnknown || !s.Complete {
					t.Errorf("%+v", s)
				}
				if s.IPv4.UDP != (tt.want != path.MappingBlocked) || !s.IPv4.Local || s.IPv6.Local {
					t.Errorf("IPv4 %+v, IPv6 %+v", s.IPv4, s.IPv6)
				}
				if tt.want == path.MappingUnknown && s.IPv4.Addresses != 1 {
					t.Errorf("addresses: %+v", s.IPv4)
				}
				outside := tt.kind != overlaytest.NoNAT && tt.kind != overlaytest.UDPBlocked
				if slices.Contains(types(s), path.TypeSTUN) != outside {
					t.Errorf("candidates: %v", s.Candidates)
				}
				if outside && s.Candidates[0].Addr.Addr() != netip.MustParseAddr("198.51.100.7") {
					t.Errorf("candidates: %v", s.Candidates)
				}
				if len(s.Answers) != len(tt.servers) || s.IPv4.UDP && (s.Answers[0].RTT > time.Since(start) || s.Answers[0].Err != "") {
					t.Errorf("answers: %+v", s.Answers)
				}
				if max := 4 * len(tt.servers); n.sends > max || s.IPv4.UDP && n.sends != len(tt.servers) {
					t.Errorf("%d requests", n.sends)
				}
			})
		})
	}
}

func itoa(p uint16) string {
	_, port, _ := net.SplitHostPort(netip.AddrPortFrom(netip.IPv4Unspecified(), p).String())
	return port
}
