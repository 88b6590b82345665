package ops

// The DNS settings of the network: records in addition to the devices' own names, split routes,
// nameservers, search domains and options. The config of each node contains them. They are kept
// in memory, and changed as a whole in one write that also raises the config version of all
// nodes (dns_edit.go). The settings of one device are in dns_device.go, former names in
// dns_alias.go, and dns_preview.go says how a name will be answered.

import (
	"context"
	"encoding/json"
	"slices"
	"strings"

	"weft/coord/store"
	"weft/overlay/api"
)

const (
	// maxRecordBytes bounds the names and values of all records together, because they are in
	// the config of every node.
	maxRecordBytes = 256 << 10
	maxAliasDays   = 365
)

// DNSInfo is the output of `dns show --json`: the DNS settings, with the names of
// records in full, and the names that devices add. It must not be changed.
type DNSInfo struct {
	Suffix string `json:"suffix"`
	store.DNS
	Aliases   []AliasInfo `json:"aliases"`
	Wildcards []string    `json:"wildcards"` // devices whose addresses answer for all names below theirs
	Revision  string      `json:"revision"`  // for EditDNS.Match
}

// AliasInfo is a former name that still leads to its device.
type AliasInfo struct {
	api.Alias
	Device string `json:"device,omitempty"`
}

// DNS returns the DNS settings, and the names that devices add to them.
func (s *Service) DNS(ctx context.Context) (DNSInfo, error) {
	return s.dnsWith(ctx, func(store.Node) bool { return true })
}

// dnsWith is DNS, but leaves out the names of devices for which may returns false.
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

// dnsRevision returns DNSInfo.Revision: a hash of the settings.
func dnsRevision(d *store.DNS) string {
	b, err := json.Marshal(d)
	if err != nil {
		panic(err) // cannot happen: the settings were read from JSON
	}
	return revisionOfParts(string(b))
}

// fullName returns the full name, without a final dot, of a stored record name.
func (s *Service) fullName(name string) string {
	switch {
	case name == "@":
		return s.suffix
	case !strings.Contains(name, "."):
		return name + "." + s.suffix
	}
	return name
}
