package ops

// What the owner decides about names: records beside the devices' own, split
// routes, nameservers, search domains and options. It is one state that is read
// from memory for each node's config and changed as a whole, in one write, with
// the version of everybody's config. What one device answers and asks is in
// dns_device.go, former names in dns_alias.go, dns_edit.go changes the state, and
// dns_preview.go says what a name will answer.

import (
	"context"
	"encoding/json"
	"slices"
	"strings"

	"weft/coord/store"
	"weft/overlay/api"
)

// Bounds, so that every node's config stays small: maxRecordBytes is over all
// names and values together.
const (
	maxRecordBytes = 256 << 10
	maxAliasDays   = 365
)

// DNSInfo is what `dns show --json` prints: what the owner decided, with the names of
// records in full, and what devices add to it. It must not be changed.
type DNSInfo struct {
	Suffix string `json:"suffix"`
	store.DNS
	Aliases   []AliasInfo `json:"aliases"`
	Wildcards []string    `json:"wildcards"` // devices that answer for every name below theirs
	Revision  string      `json:"revision"`  // what EditDNS.Match takes
}

// AliasInfo is a former name that still leads to its device.
type AliasInfo struct {
	api.Alias
	Device string `json:"device,omitempty"`
}

// DNS returns what the owner decided, and what devices add to it.
func (s *Service) DNS(ctx context.Context) (DNSInfo, error) {
	return s.dnsWith(ctx, func(store.Node) bool { return true })
}

// dnsWith is DNS with the names of those devices alone that may is true of.
func (s *Service) dnsWith(ctx context.Context, may func(store.Node) bool) (DNSInfo, error) {
	decided := s.names.Load()
	i := DNSInfo{Suffix: s.suffix, Revision: dnsRevision(decided), DNS: *decided, Aliases: []AliasInfo{}, Wildcards: []string{}}
	i.Records = slices.Clone(i.Records)
	for at, r := range i.Records {
		i.Records[at].Name = s.fullName(r.Name)
	}
	err := s.store.Read(ctx, func(r *store.Reader) error {
		list, err := r.Aliases(s.network, nil)
		if err != nil {
			return err
		}
		for _, a := range list {
			if !s.now().Before(a.Until) {
				continue
			}
			node, err := r.Node(s.network, a.NodeID)
			if err != nil {
				return err
			}
			if may(node) {
				i.Aliases = append(i.Aliases, AliasInfo{Alias: a.Alias, Device: node.Name})
			}
		}
		wild, err := r.Wildcards(s.network)
		if err != nil {
			return err
		}
		for _, w := range wild {
			node, err := r.Node(s.network, w.ID)
			if err != nil {
				return err
			}
			if may(node) {
				i.Wildcards = append(i.Wildcards, w.Name)
			}
		}
		return nil
	})
	return i, err
}

// dnsRevision changes whenever the owner changes something about names.
func dnsRevision(d *store.DNS) string {
	b, err := json.Marshal(d)
	if err != nil {
		panic(err) // it was read from JSON
	}
	return revisionOfParts(string(b))
}

// fullName is a stored name in full, without a final dot.
func (s *Service) fullName(name string) string {
	switch {
	case name == "@":
		return s.suffix
	case !strings.Contains(name, "."):
		return name + "." + s.suffix
	}
	return name
}
