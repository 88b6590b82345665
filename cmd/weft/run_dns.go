package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync/atomic"

	"weft/dns"
	"weft/overlay/localapi"
)

// nameSource is what the resolver needs of the node.
type nameSource interface {
	Names() *localapi.Names
	Resolve(ctx context.Context, name string) (localapi.Peer, error)
}

// dnsConfig lets the resolver read the node's names.
func dnsConfig(node nameSource, log *slog.Logger) dns.Config {
	// The node returns the same snapshot until something changed, and so does
	// this: the resolver makes its index once per change.
	type pair struct {
		names *localapi.Names
		zone  *dns.Zone
	}
	var last atomic.Pointer[pair]
	return dns.Config{
		Log: log,
		Zone: func() *dns.Zone {
			n := node.Names()
			if p := last.Load(); p != nil && p.names == n {
				return p.zone
			}
			p := &pair{n, zoneOf(n)}
			last.Store(p)
			return p.zone
		},
		Lookup: func(ctx context.Context, name string, addr netip.Addr) (dns.Host, error) {
			if name == "" {
				name = addr.String()
			}
			p, err := node.Resolve(ctx, name)
			switch {
			case localapi.KindOf(err) == localapi.KindUnknown:
				return dns.Host{}, dns.ErrNotFound
			case err != nil:
				return dns.Host{}, err
			}
			suffix := ""
			if n := node.Names(); n != nil {
				suffix = n.Suffix
			}
			return hostOf(p, suffix), nil
		},
	}
}

// zoneOf makes the resolver's zone of the node's names.
func zoneOf(n *localapi.Names) *dns.Zone {
	if n == nil {
		return &dns.Zone{}
	}
	z := &dns.Zone{
		Ready: n.Ready, Serial: n.Serial, Suffix: n.Suffix,
		IPv4: n.IPv4, IPv6: n.IPv6, Complete: n.Complete,
		Hosts: make([]dns.Host, 0, len(n.Peers)),
	}
	for _, p := range n.Peers {
		z.Hosts = append(z.Hosts, hostOf(p, n.Suffix))
	}
	return z
}

func hostOf(p localapi.Peer, suffix string) dns.Host {
	name := p.Name
	if rel, ok := strings.CutSuffix(p.FQDN, "."+suffix); ok && suffix != "" {
		name = rel
	}
	return dns.Host{Name: name, IPv4: p.IPv4, IPv6: p.IPv6}
}

// queryDNS is the resolver as the local API sees it.
func queryDNS(s *dns.Server) func(ctx context.Context, name, qtype string) (localapi.DNSAnswer, error) {
	return func(ctx context.Context, name, qtype string) (localapi.DNSAnswer, error) {
		a, err := s.Query(ctx, name, qtype)
		if err != nil {
			return localapi.DNSAnswer{}, &localapi.Error{Kind: localapi.KindUsage, Message: fmt.Sprintf("dns query: %v", err)}
		}
		return localapi.DNSAnswer{
			Schema: "dns/1", Name: a.Name, Rcode: a.Rcode, Answers: a.Answers, Authority: a.Authority,
			Source: a.Source, Note: a.Note,
		}, nil
	}
}
