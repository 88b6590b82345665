package ops

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"

	"weft/coord/store"
	"weft/dns"
	"weft/overlay/api"
	"weft/overlay/cert"
)

// PreviewQuery is a DNS query of a device, for which Preview says how it will be answered.
type PreviewQuery struct {
	Name string `json:"name"` // short, full, or an address
	Type string `json:"type"` // such as "MX"; "" for A and AAAA, or for PTR if Name is an address
	From string `json:"from"` // id of the device that asks; "" for one that sees every device
}

// Preview says how a device's resolver will answer a query, and why.
type Preview struct {
	Name    string        `json:"name"`    // the full name that is asked for
	Rcode   string        `json:"rcode"`   // such as "NXDOMAIN"; "" if another resolver would be asked
	Answers []string      `json:"answers"` // as in a zone file
	Steps   []PreviewStep `json:"steps"`
}

// PreviewStep is one decision on the path to the answer.
type PreviewStep struct {
	Stage string `json:"stage"`
	Text  string `json:"text"`
}

// errPreview is returned instead of a connection to another resolver.
var errPreview = errors.New("a preview asks no other resolver")

// PreviewName runs the devices' own resolver (package dns) for one query, with the names that
// the asking device sees. It makes the decisions that the device would make, but asks no other
// resolver.
func (s *Service) PreviewName(ctx context.Context, q PreviewQuery) (Preview, error) {
	return s.previewName(ctx, q, func(store.Node) bool { return true })
}

// previewName is PreviewName, but leaves out devices for which may returns false.
func (s *Service) previewName(ctx context.Context, q PreviewQuery, may func(store.Node) bool) (Preview, error) {
	if len(q.Name) > 255 || strings.TrimSpace(q.Name) == "" {
		return Preview{}, Invalid("want a name of at most 253 letters")
	}
	var from cert.NodeID
	settings := s.names.Load().DNS
	if q.From != "" {
		var err error
		if from, err = cert.ParseNodeID(q.From); err != nil {
			return Preview{}, Invalid("from: not a node id")
		}
		if _, ok := s.index.has(from); !ok {
			return Preview{}, ErrNotFound
		}
	}
	settings.Wildcards = s.index.wildcardNames(from, dns.MaxWildcards)
	err := s.store.Read(ctx, func(r *store.Reader) error {
		settings.Wildcards = slices.DeleteFunc(settings.Wildcards, func(name string) bool {
			node, err := r.NodeByName(s.network, name)
			return err != nil || !may(node)
		})
		return nil
	})
	if err != nil {
		return Preview{}, err
	}
	sees := func(node store.Node) bool {
		return may(node) && (from.IsZero() || node.ID == from || s.index.reaches(from, node.Class))
	}
	lookup := func(ctx context.Context, name string, addr netip.Addr) (dns.Host, error) {
		ip := ""
		if addr.IsValid() {
			ip = addr.String()
		}
		find, err := s.finder(name, ip, "")
		if err != nil {
			return dns.Host{}, dns.ErrNotFound
		}
		var node store.Node
		err = s.store.Read(ctx, func(r *store.Reader) (err error) { node, err = find(r); return err })
		switch {
		case isNotFound(err), err == nil && !sees(node):
			return dns.Host{}, dns.ErrNotFound
		case err != nil:
			return dns.Host{}, err
		}
		return s.hostOf(node), nil
	}
	zone := &dns.Zone{
		Ready: true, Serial: s.index.info().N, Suffix: s.suffix, IPv4: s.ipv4, IPv6: s.ipv6,
	}
	// Put the devices that the name can be about into the zone, as they are on a node that has
	// the directory. Lookup finds any others.
	for _, label := range s.labelsOf(q.Name) {
		var node store.Node
		err := s.store.Read(ctx, func(r *store.Reader) (err error) { node, err = r.NodeByName(s.network, label); return err })
		switch {
		case err == nil && sees(node):
			zone.Hosts = append(zone.Hosts, s.hostOf(node))
		case err == nil, isNotFound(err):
			if err := s.aliasFor(ctx, label, &settings, sees, zone); err != nil {
				return Preview{}, err
			}
		default:
			return Preview{}, err
		}
	}
	r := dns.New(dns.Config{
		Zone: func() *dns.Zone { return zone }, Settings: func() *dns.Settings { return &settings },
		Lookup: lookup, Log: s.log, Bootstrap: func() []string { return s.ownHosts() },
		System: func() ([]netip.AddrPort, bool) { return nil, true },
		Dial:   func(context.Context, string, string) (net.Conn, error) { return nil, errPreview },
	})
	defer r.Close()
	a, err := r.Trace(ctx, q.Name, q.Type)
	if err != nil {
		return Preview{}, Invalid("%v", err)
	}
	p := Preview{Name: strings.TrimSuffix(a.Name, "."), Rcode: a.Rcode, Answers: a.Answers, Steps: []PreviewStep{}}
	for _, st := range a.Steps {
		switch st.Stage {
		case "route":
			p.Rcode = ""
		case "cache", "forward", "answer":
			continue // steps of asking another resolver, which did not happen; the answer is in p already
		}
		step := PreviewStep{st.Stage, st.Text}
		if !slices.Contains(p.Steps, step) {
			p.Steps = append(p.Steps, step)
		}
	}
	return p, nil
}

func (s *Service) hostOf(n store.Node) dns.Host {
	return dns.Host{Name: n.Name, IPv4: n.IPv4, IPv6: store.IPv6Of(s.ipv6, n.IPv4)}
}

// labelsOf returns the device name that a query can be about, if any: the last label before the
// network's suffix.
func (s *Service) labelsOf(name string) []string {
	ascii, err := dns.ASCIIName(strings.TrimSuffix(strings.TrimSpace(name), "."))
	if err != nil {
		return nil
	}
	ascii = strings.ToLower(ascii)
	rest, ok := strings.CutSuffix(ascii, "."+s.suffix)
	if !ok && strings.Contains(ascii, ".") {
		return nil
	}
	return []string{rest[strings.LastIndexByte(rest, '.')+1:]}
}

// aliasFor adds label to the settings and its device to the zone, if label is an alias of a
// device.
func (s *Service) aliasFor(ctx context.Context, label string, to *dns.Settings, sees func(store.Node) bool, zone *dns.Zone) error {
	return s.store.Read(ctx, func(r *store.Reader) error {
		node, err := r.NodeByAlias(s.network, label, s.now())
		if isNotFound(err) || err == nil && !sees(node) {
			return nil
		}
		if err != nil {
			return err
		}
		to.Aliases = append(slices.Clone(to.Aliases), dns.Alias{Name: label, Target: node.Name}) // without Until: it has not expired by the server's clock
		zone.Hosts = append(zone.Hosts, s.hostOf(node))
		return nil
	})
}

// ownHosts returns the host names of the server and its relays.
func (s *Service) ownHosts() []string {
	n := s.index.info()
	relays := []api.Relay{{URLs: n.URLs, STUN: n.STUN}}
	for _, r := range s.index.allRelays() {
		relays = append(relays, api.Relay{URLs: r.URLs, STUN: r.STUN})
	}
	var out []string
	for _, r := range relays {
		out = append(out, hostNames(r.URLs, r.STUN)...)
	}
	return out
}
