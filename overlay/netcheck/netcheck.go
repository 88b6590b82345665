// Package netcheck measures the connections from here to the server and relays, and
// says what they mean for direct paths. It makes the report of weft netcheck.
//
// Not for embedders: it is for the command line.
package netcheck

import (
	"cmp"
	"context"
	"errors"
	"net"
	"net/url"
	"slices"
	"sort"
	"syscall"
	"time"

	"weft/overlay/internal/path"
	"weft/overlay/limited"
	"weft/overlay/status"
)

// Report is the result of weft netcheck.
type Report struct {
	Schema string      `json:"schema"` // "netcheck/1"
	Links  []LinkCheck `json:"links"`  // one per URL of the server and of each relay
	UDP    UDPCheck    `json:"udp"`
	When   time.Time   `json:"when"`
	STUN   []UDPReply  `json:"stun"` // one per STUN address, the fastest first

	IPv4        FamilyCheck      `json:"ipv4"`
	IPv6        FamilyCheck      `json:"ipv6"`
	PortMapping PortMapCheck     `json:"port_mapping"`
	Candidates  []CandidateCheck `json:"candidates"` // addresses that peers get
	Direct      string           `json:"direct"`     // the meaning for direct paths, one sentence
}

// FamilyCheck is the result for IPv4 or IPv6.
type FamilyCheck struct {
	Address  bool   `json:"address"`  // this device has an address beyond link-local
	UDP      bool   `json:"udp"`      // a STUN server answered
	Endpoint string `json:"endpoint"` // our address as seen from outside
	// Mapping is none, easy, hard, blocked or unknown; Text explains it, or why it is
	// unknown.
	Mapping       string `json:"mapping"`
	Text          string `json:"text"`
	STUNAddresses int    `json:"stun_addresses"` // number of STUN addresses behind Mapping
}

// PortMapCheck is the result of asking the gateway for a port mapping.
type PortMapCheck struct {
	Asked    bool   `json:"asked"`    // false: disabled, or the node is down
	Protocol string `json:"protocol"` // pcp, nat-pmp, upnp or ""
	Gateway  string `json:"gateway"`
	External string `json:"external"` // the mapped address and port
	Useless  bool   `json:"useless"`  // the gateway itself is behind another NAT
	Text     string `json:"text"`
}

// CandidateCheck is an address that peers get.
type CandidateCheck struct {
	Addr string `json:"addr"`
	Type string `json:"type"` // manual, mapped, stun or host
}

// LinkCheck is one TCP connection attempt.
type LinkCheck struct {
	Kind    string   `json:"kind"` // "server" or "relay"
	Name    string   `json:"name"`
	URL     string   `json:"url"`
	Current bool     `json:"current"`
	RTTms   *float64 `json:"rtt_ms"` // time of the TCP handshake, null if it failed
	Error   string   `json:"error"`
}

// UDPReply is one address of a STUN server.
type UDPReply struct {
	Server   string   `json:"server"`   // as configured
	Address  string   `json:"address"`  // one of its addresses
	Endpoint string   `json:"endpoint"` // our address as seen from there
	RTTms    *float64 `json:"rtt_ms"`
	Error    string   `json:"error"`
}

// UDPCheck summarizes the STUN answers.
type UDPCheck struct {
	Works bool `json:"works"`
	// Endpoint is our public IPv4 or IPv6 address and port of one socket.
	Endpoint string `json:"endpoint"`
	// Varies is set if two servers saw different endpoints of the same socket: this NAT
	// makes direct paths hard.
	Varies bool `json:"varies"`
}

// linkTimeout bounds one TCP handshake.
const linkTimeout = 5 * time.Second

// maxChecks bounds the checks of one netcheck, for a long list of relays.
const maxChecks = 64

// Run checks all relays at once; it takes as long as the slowest answer, at most 8 s.
// node, which may be nil, finds the addresses at which peers can reach it. Links are
// sorted by round trip, the server's first.
func Run(ctx context.Context, relays []status.Relay, node Gatherer) Report {
	n := Report{Schema: "netcheck/1", When: time.Now().UTC().Truncate(time.Second), Links: []LinkCheck{}, STUN: []UDPReply{}}
	var stun []string
	for _, r := range relays {
		kind := "relay"
		if r.Server {
			kind = "server"
		}
		for _, u := range r.URLs {
			if len(n.Links) < maxChecks {
				n.Links = append(n.Links, LinkCheck{Kind: kind, Name: r.Name, URL: u, Current: r.Current})
			}
		}
		for _, s := range r.STUN {
			if len(stun) < maxChecks {
				stun = append(stun, s)
			}
		}
	}
	var checks []func()
	for i := range n.Links {
		checks = append(checks, limited.Go(func() { n.Links[i].run(ctx) }))
	}
	seen := gatherAll(ctx, stun, node)
	for _, wait := range checks {
		wait()
	}

	sort.SliceStable(n.Links, func(i, j int) bool {
		a, b := &n.Links[i], &n.Links[j]
		if a.Kind != b.Kind {
			return a.Kind > b.Kind
		}
		return byRTT(a.RTTms, b.RTTms) < 0
	})
	n.STUN = replies(seen)
	up := len(n.Links) == 0 || slices.ContainsFunc(n.Links, func(l LinkCheck) bool { return l.RTTms != nil })
	n.IPv4, n.IPv6 = familyCheck("IPv4", seen.IPv4, up), familyCheck("IPv6", seen.IPv6, up)
	n.PortMapping = portMapCheck(seen.PortMap)
	n.UDP.Works = n.IPv4.UDP || n.IPv6.UDP
	n.UDP.Endpoint = cmp.Or(n.IPv4.Endpoint, n.IPv6.Endpoint)
	n.UDP.Varies = seen.IPv4.Mapping == path.MappingHard || seen.IPv6.Mapping == path.MappingHard
	n.Candidates = []CandidateCheck{}
	for _, c := range seen.Candidates {
		n.Candidates = append(n.Candidates, CandidateCheck{Addr: c.Addr.String(), Type: string(c.Type)})
	}
	n.Direct = direct(seen, up)
	return n
}

// byRTT sorts failures last.
func byRTT(a, b *float64) int {
	switch {
	case a == nil && b == nil:
		return 0
	case a == nil:
		return 1
	case b == nil:
		return -1
	}
	return cmp.Compare(*a, *b)
}

func (l *LinkCheck) run(ctx context.Context) {
	u, err := url.Parse(l.URL)
	if err != nil || u.Host == "" {
		l.Error = "not a URL"
		return
	}
	addr := u.Host
	if u.Port() == "" {
		addr = net.JoinHostPort(u.Hostname(), "443")
	}
	// Resolve the name first, so that the figure is only the round trip.
	host, port, _ := net.SplitHostPort(addr)
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		l.Error = reason(err)
		return
	}
	ctx, cancel := context.WithTimeout(ctx, linkTimeout)
	defer cancel()
	for _, ip := range ips[:min(len(ips), 4)] {
		var d net.Dialer
		start := time.Now()
		c, derr := d.DialContext(ctx, "tcp", net.JoinHostPort(ip.Unmap().String(), port))
		if derr != nil {
			err = derr
			continue
		}
		rtt := ms(time.Since(start))
		c.Close()
		l.RTTms, l.Error = &rtt, ""
		return
	}
	if err != nil {
		l.Error = reason(err)
	}
}

// reason is the cause of a connection error, without the address, which is shown beside
// it.
func reason(err error) string {
	var errno syscall.Errno
	var lookup *net.DNSError
	var op *net.OpError
	switch {
	case errors.As(err, &errno):
		return errno.Error()
	case errors.As(err, &lookup):
		return lookup.Err
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &op) && op.Timeout():
		return "no answer in time"
	case errors.As(err, &op):
		return op.Err.Error()
	}
	return err.Error()
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
