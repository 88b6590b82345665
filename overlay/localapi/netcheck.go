package localapi

import (
	"context"
	"net"
	"net/netip"
	"net/url"
	"sync"
	"time"
)

// Netcheck is what weft netcheck shows: the ways from here to the server side.
type Netcheck struct {
	Schema string      `json:"schema"` // "netcheck/1"
	Links  []LinkCheck `json:"links"`  // one per URL of the server and of each relay
	UDP    UDPCheck    `json:"udp"`
	When   time.Time   `json:"when"`
	STUN   []UDPReply  `json:"stun"` // one per STUN address
}

// LinkCheck is one TCP connection tried.
type LinkCheck struct {
	Kind    string   `json:"kind"` // "server" or "relay"
	Name    string   `json:"name"`
	URL     string   `json:"url"`
	Current bool     `json:"current"`
	RTTms   *float64 `json:"rtt_ms"` // time of the TCP handshake, null when it failed
	Error   string   `json:"error"`
}

// UDPReply is one STUN request.
type UDPReply struct {
	Server   string   `json:"server"`
	Endpoint string   `json:"endpoint"` // our address as seen from there
	RTTms    *float64 `json:"rtt_ms"`
	Error    string   `json:"error"`
}

// UDPCheck sums the STUN answers up.
type UDPCheck struct {
	Works bool `json:"works"`
	// Endpoint is our public IPv4 or IPv6 address and port for one socket.
	Endpoint string `json:"endpoint"`
	// Varies is set when two servers saw different endpoints of the same
	// socket: the NAT here makes direct paths hard.
	Varies bool `json:"varies"`
}

// linkTimeout bounds one TCP handshake, udpTimeout all tries of one STUN
// request.
const (
	linkTimeout = 5 * time.Second
	udpTimeout  = 2 * time.Second
)

// maxChecks bounds what a long relay list can make one netcheck do.
const maxChecks = 64

// RunNetcheck measures all of relays at once; it takes as long as the slowest
// answer, at most 5 s.
func RunNetcheck(ctx context.Context, relays []Relay) Netcheck {
	n := Netcheck{Schema: "netcheck/1", When: time.Now().UTC().Truncate(time.Second), Links: []LinkCheck{}, STUN: []UDPReply{}}
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
	var wg sync.WaitGroup
	for i := range n.Links {
		wg.Go(func() { n.Links[i].run(ctx) })
	}
	wg.Go(func() { n.STUN = checkSTUN(ctx, stun) })
	wg.Wait()

	for _, r := range n.STUN {
		if r.Endpoint == "" {
			continue
		}
		n.UDP.Works = true
		if n.UDP.Endpoint == "" {
			n.UDP.Endpoint = r.Endpoint
		} else if sameFamily(n.UDP.Endpoint, r.Endpoint) && n.UDP.Endpoint != r.Endpoint {
			n.UDP.Varies = true
		}
	}
	return n
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
	// The name is looked up first, so that the figure is the round trip alone.
	host, port, _ := net.SplitHostPort(addr)
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		l.Error = err.Error()
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
		l.Error = err.Error()
	}
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func sameFamily(a, b string) bool {
	x, err1 := netip.ParseAddrPort(a)
	y, err2 := netip.ParseAddrPort(b)
	return err1 == nil && err2 == nil && x.Addr().Is4() == y.Addr().Is4()
}
