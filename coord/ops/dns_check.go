package ops

import (
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"

	"weft/coord/store"
	"weft/dns"
)

// checkDNS refuses settings that resolvers would ignore, and settings that would cut
// devices off.
func (s *Service) checkDNS(old, next *store.DNS) error {
	size := 0
	for _, r := range next.Records {
		size += len(r.Name) + len(r.Value)
	}
	switch {
	case len(next.Records) > dns.MaxRecords && len(next.Records) > len(old.Records):
		return Invalid("%d records, at most %d", len(next.Records), dns.MaxRecords)
	case size > maxRecordBytes && len(next.Records) > len(old.Records):
		return Invalid("the records are %d bytes together, at most %d", size, maxRecordBytes)
	}
	// A setting that was wrong already does not stop another change: it may have become
	// wrong because the network's suffix changed.
	known := map[string]bool{}
	for _, p := range dns.Problems(&old.DNS, s.suffix) {
		known[p.Text] = true
	}
	for _, p := range dns.Problems(&next.DNS, s.suffix) {
		if !known[p.Text] {
			return Invalid("%s: %s", s.partName(next, p.Part), p.Text)
		}
	}
	for _, r := range next.Routes {
		if host := s.coversServer(r.Suffix); host != "" && !slices.ContainsFunc(old.Routes, func(o dns.Route) bool { return o.Suffix == r.Suffix }) {
			return Invalid("route %s: it covers the server's own name %s, which devices must find before they have a network", r.Suffix, host)
		}
		if err := checkServers(r.Nameservers); err != nil {
			return Invalid("route %s: %v", r.Suffix, err)
		}
	}
	if err := checkServers(next.Nameservers); err != nil {
		return err
	}
	return nil
}

// partName says what a problem's part is: records[3] means nothing to people.
func (s *Service) partName(n *store.DNS, part string) string {
	var i int
	if _, err := fmt.Sscanf(part, "records[%d]", &i); err == nil && i < len(n.Records) {
		return "record " + s.fullName(n.Records[i].Name) + " " + n.Records[i].Type
	}
	if _, err := fmt.Sscanf(part, "routes[%d]", &i); err == nil && i < len(n.Routes) {
		return "route " + n.Routes[i].Suffix
	}
	return strings.ReplaceAll(part, "_", "-")
}

// checkServers refuses the resolver itself as its own upstream.
func checkServers(list []dns.Nameserver) error {
	for _, n := range list {
		host := n.Address
		if u, err := url.Parse(n.Address); err == nil && u.Host != "" {
			host = u.Hostname()
		} else if h, _, err := net.SplitHostPort(n.Address); err == nil {
			host = h
		}
		if slices.Contains(append([]string{host}, n.Bootstrap...), dns.ServiceAddr.String()) {
			return Invalid("nameserver %s: this is the devices' own resolver, which would ask itself", printable(n.Address, 80))
		}
	}
	return nil
}

// coversServer returns the host name of the server or a relay that is zone or
// below it, "" for none.
func (s *Service) coversServer(zone string) string { return coveredHost(zone, s.ownHosts()) }

func coveredHost(zone string, hosts []string) string {
	for _, h := range hosts {
		if h == zone || strings.HasSuffix(h, "."+zone) {
			return h
		}
	}
	return ""
}

// hostNames are the names, not the addresses, in a server's or relay's
// addresses, in lower case.
func hostNames(urls, stun []string) []string {
	var out []string
	add := func(h string) {
		if h = strings.ToLower(strings.TrimSuffix(h, ".")); h != "" && !isAddr(h) {
			out = append(out, h)
		}
	}
	for _, raw := range urls {
		if u, err := url.Parse(raw); err == nil {
			add(u.Hostname())
		}
	}
	for _, a := range stun {
		if h, _, err := net.SplitHostPort(a); err == nil {
			add(h)
		}
	}
	return out
}
