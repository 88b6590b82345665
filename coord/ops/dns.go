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
	"fmt"
	"slices"
	"strings"
	"time"

	"weft/coord/store"
	"weft/dns"
	"weft/overlay/api"
	"weft/overlay/cert"
)

// Bounds, so that every node's config stays small: maxRecordBytes is over all
// names and values together.
const (
	maxRecordBytes  = 256 << 10
	maxAliasDays    = 365
	defaultAliasDay = 14
)

// DNSInfo is what `dns show --json` prints: the options as api.DNS has them,
// and whatever has a name.
type DNSInfo struct {
	Suffix           string           `json:"suffix"`
	Records          []RecordInfo     `json:"records"`
	Routes           []api.DNSRoute   `json:"routes"`
	Nameservers      []api.Nameserver `json:"nameservers"`
	Search           []string         `json:"search"`
	Aliases          []AliasInfo      `json:"aliases"`
	Wildcards        []string         `json:"wildcards"` // devices that answer for every name below theirs
	AliasDays        int              `json:"alias_days"`
	TTL              int              `json:"ttl"` // seconds, 0 is 5
	LANNamesWin      bool             `json:"lan_names_win"`
	StopRebinding    bool             `json:"stop_rebinding"`
	RebindingAllowed []string         `json:"rebinding_allowed"`
	KeepBrowsers     bool             `json:"keep_browsers"`
	NoStale          bool             `json:"no_stale"`
	PortalURL        string           `json:"portal_url"`
	QueryLog         bool             `json:"query_log"`
}

// RecordInfo is one record. Name is in full.
type RecordInfo struct {
	ID    string `json:"id"`
	Name  string `json:"name"`
	Type  string `json:"type"`
	Value string `json:"value"`
	TTL   int    `json:"ttl"` // seconds, 0 is 300
}

// AliasInfo is a former name that still leads to its device.
type AliasInfo struct {
	Name   string    `json:"name"`
	Device string    `json:"device,omitempty"`
	Until  time.Time `json:"until"`
}

// ownerDNS is the stored form of all but the records.
type ownerDNS struct {
	dns.Settings
	AliasDays *int `json:"alias_days,omitempty"` // nil for the default
}

func (d *ownerDNS) aliasDays() int {
	if d.AliasDays == nil {
		return defaultAliasDay
	}
	return *d.AliasDays
}

// names is what the owner decided, ready to be sent. It is immutable.
type names struct {
	owner   ownerDNS // Records, Aliases and Wildcards are empty
	records []store.DNSRecord
	wire    api.DNS // the same, without what is one device's
}

func readNames(r *store.Reader, id cert.NetworkID) (*names, error) {
	text, records, err := r.DNS(id)
	if err != nil {
		return nil, err
	}
	n := &names{records: records}
	if text != "" {
		if err := json.Unmarshal([]byte(text), &n.owner); err != nil {
			return nil, fmt.Errorf("read dns settings: %w", err)
		}
	}
	n.build()
	return n, nil
}

// build fills wire.
func (n *names) build() {
	o := &n.owner
	n.wire = api.DNS{
		Search: slices.Concat([]string{}, o.Search), LANNamesWin: o.LANNamesWin, Nameservers: wireServers(o.Nameservers),
		Routes: []api.DNSRoute{}, Records: []api.DNSRecord{}, Aliases: []api.DNSAlias{}, Wildcards: []string{},
		TTL: o.TTL, StopRebinding: o.StopRebinding, RebindingAllowed: slices.Concat([]string{}, o.RebindingAllowed),
		KeepBrowsers: o.KeepBrowsers, NoStale: o.NoStale, PortalURL: o.PortalURL, QueryLog: o.QueryLog,
	}
	for _, r := range o.Routes {
		n.wire.Routes = append(n.wire.Routes, api.DNSRoute{Suffix: r.Suffix, Nameservers: wireServers(r.Nameservers)})
	}
	for _, r := range n.records {
		n.wire.Records = append(n.wire.Records, api.DNSRecord{Name: r.Name, Type: r.Type, Value: r.Value, TTL: r.TTL})
	}
}

// settings is the same for package dns.
func (n *names) settings() *dns.Settings {
	s := n.owner.Settings
	s.Records = nil
	for _, r := range n.records {
		s.Records = append(s.Records, dns.Record{Name: r.Name, Type: r.Type, Value: r.Value, TTL: r.TTL})
	}
	return &s
}

func wireServers(list []dns.Nameserver) []api.Nameserver {
	out := []api.Nameserver{}
	for _, n := range list {
		out = append(out, api.Nameserver{Address: n.Address, Bootstrap: slices.Concat([]string{}, n.Bootstrap)})
	}
	return out
}

// DNS returns what the owner decided, and what devices add to it.
func (s *Service) DNS(ctx context.Context) (DNSInfo, error) {
	n := s.names.Load()
	i := DNSInfo{
		Suffix: s.suffix, Records: []RecordInfo{}, Routes: append([]api.DNSRoute{}, n.wire.Routes...),
		Nameservers: append([]api.Nameserver{}, n.wire.Nameservers...), Search: append([]string{}, n.wire.Search...),
		Aliases: []AliasInfo{}, Wildcards: []string{}, AliasDays: n.owner.aliasDays(), TTL: n.owner.TTL,
		LANNamesWin: n.owner.LANNamesWin, StopRebinding: n.owner.StopRebinding, RebindingAllowed: append([]string{}, n.wire.RebindingAllowed...),
		KeepBrowsers: n.owner.KeepBrowsers, NoStale: n.owner.NoStale, PortalURL: n.owner.PortalURL, QueryLog: n.owner.QueryLog,
	}
	for _, r := range n.records {
		i.Records = append(i.Records, RecordInfo{ID: r.ID, Name: s.fullName(r.Name), Type: r.Type, Value: r.Value, TTL: r.TTL})
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
			i.Aliases = append(i.Aliases, AliasInfo{Name: a.Name, Device: node.Name, Until: a.Until})
		}
		wild, err := r.Wildcards(s.network)
		for _, w := range wild {
			i.Wildcards = append(i.Wildcards, w.Name)
		}
		return err
	})
	return i, err
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
