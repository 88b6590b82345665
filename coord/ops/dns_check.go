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

// checkDNS returns an error for settings that the devices' resolvers would ignore, or with
// which devices could not find the server any more.
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
	// A setting that was wrong before does not prevent other changes. It may have become wrong
	// because the network's suffix changed.
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
			return Invalid("route %s: it covers the server's own name %s, which devices have to resolve before they are connected", r.Suffix, host)
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

// partName returns words for the part of the settings that a problem is about, such as the name
// of a record for "records[3]".
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

// checkServers refuses the address of the devices' own resolver as a nameserver.
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

// coversServer returns a host name of the server or of a relay that equals zone or is below
// it, "" for none.
func (s *Service) coversServer(zone string) string { return coveredHost(zone, s.ownHosts()) }

func coveredHost(zone string, hosts []string) string {
	for _, h := range hosts {
		if h == zone || strings.HasSuffix(h, "."+zone) {
			return h
		}
	}
	return ""
}

// hostNames returns the host names in the URLs and STUN addresses of a server or relay, in
// lower case and without IP addresses.
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
