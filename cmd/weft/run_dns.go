package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"

	"weft/dns"
	"weft/overlay/api"
	"weft/overlay/localapi"
	"weft/overlay/status"
)

// nameSource is the part of the node that the resolver needs.
type nameSource interface {
	Names() *status.Names
	Resolve(ctx context.Context, name string) (status.Peer, error)
	DNS() *api.DNS
	Relays() []status.Relay
	DialContext(ctx context.Context, network, address string) (net.Conn, error)
}

// dnsConfig gives the resolver access to the node's names and settings. The resolver
// compiles the data behind each new pointer, so each pointer stays the same until its
// data changes.
func dnsConfig(node nameSource, log *slog.Logger) dns.Config {
	zone := &follower[status.Names, dns.Zone]{make: zoneOf, same: sameZone}
	settings := &follower[api.DNS, dns.Settings]{make: func(d *api.DNS) *dns.Settings { return d }, same: func(a, b *dns.Settings) bool { return reflect.DeepEqual(a, b) }}
	former := &aliases{}
	return dns.Config{
		Log:         log,
		Zone:        func() *dns.Zone { return zone.get(node.Names()) },
		Settings:    func() *dns.Settings { return former.with(settings.get(node.DNS()), node.Names()) },
		Bootstrap:   func() []string { return bootstrapNames(node.Relays()) },
		DialOverlay: node.DialContext,
		Lookup: func(ctx context.Context, name string, addr netip.Addr) (dns.Host, error) {
			if name == "" {
				name = addr.String()
			}
			p, err := node.Resolve(ctx, name)
			switch {
			case status.KindOf(err) == status.KindUnknown:
				return dns.Host{}, dns.ErrNotFound
			case err != nil:
				return dns.Host{}, err
			}
			suffix := ""
			if n := node.Names(); n != nil {
				suffix = n.Suffix
			}
			h := hostOf(p, suffix)
			if _, err := netip.ParseAddr(name); err != nil && !strings.EqualFold(h.Name, name) {
				h.Former = name // the node has checked that it is a former name
			}
			return h, nil
		},
	}
}

// follower converts snapshots of one type to another, and returns the same pointer as
// long as the content is the same.
type follower[From, To any] struct {
	make func(*From) *To
	same func(a, b *To) bool
	last atomic.Pointer[followed[From, To]]
}

type followed[From, To any] struct {
	from *From
	to   *To
}

func (f *follower[From, To]) get(from *From) *To {
	last := f.last.Load()
	if last != nil && last.from == from {
		return last.to
	}
	next := &followed[From, To]{from, f.make(from)}
	if last != nil && f.same(last.to, next.to) {
		next.to = last.to
	}
	f.last.Store(next)
	return next.to
}

// aliases adds the former names of peers to the settings, and returns the same pointer
// as long as both are the same.
type aliases struct{ last atomic.Pointer[withAliases] }

type withAliases struct {
	base, all *dns.Settings
	names     *status.Names
}

func (f *aliases) with(base *dns.Settings, n *status.Names) *dns.Settings {
	if n == nil || len(n.Aliases) == 0 {
		return base
	}
	last := f.last.Load()
	if last != nil && last.base == base && last.names == n {
		return last.all
	}
	next := &withAliases{base: base, names: n}
	if last != nil && last.base == base && slices.Equal(last.names.Aliases, n.Aliases) {
		next.all = last.all
	} else {
		next.all = &dns.Settings{}
		if base != nil {
			*next.all = *base
		}
		next.all.Aliases = slices.Clip(next.all.Aliases)
		for _, a := range n.Aliases {
			next.all.Aliases = append(next.all.Aliases, dns.Alias(a))
		}
	}
	f.last.Store(next)
	return next.all
}

// zoneOf turns the node's names into the resolver's zone.
func zoneOf(n *status.Names) *dns.Zone {
	if n == nil {
		return &dns.Zone{}
	}
	z := &dns.Zone{
		Ready: n.Ready, Serial: n.Serial, Suffix: n.Suffix,
		IPv4: n.IPv4, IPv6: n.IPv6, NoIPv4: n.NoIPv4, Complete: n.Complete, LookedUp: n.LookedUp,
		Hosts: make([]dns.Host, 0, len(n.Peers)),
	}
	for _, p := range n.Peers {
		if p.LookedUp {
			continue // looked up again; the node answers from its cache for a while
		}
		z.Hosts = append(z.Hosts, hostOf(p, n.Suffix))
	}
	return z
}

// sameZone compares everything except the serial, which also changes with presence.
// Presence does not affect names.
func sameZone(a, b *dns.Zone) bool {
	return a.Ready == b.Ready && a.Suffix == b.Suffix && a.IPv4 == b.IPv4 && a.IPv6 == b.IPv6 && a.NoIPv4 == b.NoIPv4 &&
		a.Complete == b.Complete && a.LookedUp == b.LookedUp && slices.Equal(a.Hosts, b.Hosts)
}

func hostOf(p status.Peer, suffix string) dns.Host {
	name := p.Name
	if rel, ok := strings.CutSuffix(p.FQDN, "."+suffix); ok && suffix != "" {
		name = rel
	}
	return dns.Host{Name: name, IPv4: p.IPv4, IPv6: p.IPv6}
}

// bootstrapNames are the host names of the server and its relays.
func bootstrapNames(l []status.Relay) []string {
	var out []string
	add := func(host string) {
		if _, err := netip.ParseAddr(host); err != nil && host != "" {
			out = append(out, host)
		}
	}
	for _, r := range l {
		for _, u := range r.URLs {
			if u, err := url.Parse(u); err == nil {
				add(u.Hostname())
			}
		}
		for _, s := range r.STUN {
			if host, _, err := net.SplitHostPort(s); err == nil {
				add(host)
			}
		}
	}
	return out
}

// answerOf converts the resolver's answer for the local API.
func answerOf(a dns.Answer, err error) (localapi.DNSAnswer, error) {
	if err != nil {
		return localapi.DNSAnswer{}, &status.Error{Kind: status.KindUsage, Message: fmt.Sprintf("dns query: %v", err)}
	}
	out := localapi.DNSAnswer{
		Schema: "dns/1", Name: a.Name, Rcode: a.Rcode, Answers: a.Answers, Authority: a.Authority,
		Source: a.Source, Note: a.Note, Steps: []localapi.DNSStep{},
	}
	for _, st := range a.Steps {
		out.Steps = append(out.Steps, localapi.DNSStep(st))
	}
	return out, nil
}

// queryDNS is the resolver for the local API.
func queryDNS(s *dns.Server) func(ctx context.Context, name, qtype string) (localapi.DNSAnswer, error) {
	return func(ctx context.Context, name, qtype string) (localapi.DNSAnswer, error) {
		return answerOf(s.Query(ctx, name, qtype))
	}
}

// resolverAPI is the rest of it: status, trace, flush.
func resolverAPI(s *dns.Server) *localapi.Resolver {
	return &localapi.Resolver{
		Trace: func(ctx context.Context, name, qtype string) (localapi.DNSAnswer, error) {
			return answerOf(s.Trace(ctx, name, qtype))
		},
		Status: func() any { return s.Status() },
		Flush:  s.Flush,
	}
}

// resolverHealth are the resolver's problems.
func resolverHealth(s *dns.Server) []status.Health {
	var out []status.Health
	for _, h := range s.Health() {
		out = append(out, status.Health{Code: status.Code(h.Code), Message: h.Message})
	}
	return out
}
