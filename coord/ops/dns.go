package ops

// What the owner decides about names: records beside the devices' own, split
// routes, nameservers, search domains and options. It is one state that is read
// from memory for each node's config and changed as a whole, in one write, with
// the version of everybody's config. What one device answers and asks is in
// dns_device.go, former names in dns_alias.go, and dns_preview.go says what a
// name will answer.

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
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

// DNSEdit is a change of what the owner decided. The parts that are set are
// done in this order, all of them or none.
type DNSEdit struct {
	RemoveRecord *RecordMatch      `json:"remove_record,omitempty"`
	AddRecord    *NewRecord        `json:"add_record,omitempty"`
	RemoveRoute  *string           `json:"remove_route,omitempty"`
	AddRoute     *api.DNSRoute     `json:"add_route,omitempty"`    // takes the place of one with the same suffix
	Nameservers  *[]api.Nameserver `json:"nameservers,omitempty"`  // all of them
	Search       *[]string         `json:"search,omitempty"`       // all of them
	Options      map[string]string `json:"options,omitempty"`      // by the names of Options
	RemoveAlias  *string           `json:"remove_alias,omitempty"` // a former name
}

// NewRecord asks for a record. Name is short ("www"), "@", or a full name
// inside the network's zone; names of other zones need Outside.
type NewRecord struct {
	Name    string `json:"name"`
	Type    string `json:"type"`
	Value   string `json:"value"`
	TTL     int    `json:"ttl"`
	Outside bool   `json:"outside"` // the name is not in the network's zone, and that is meant
	Shadow  bool   `json:"shadow"`  // a device has the name; it wins as long as it has it
}

// RecordMatch says which records to remove: the one with an ID, or those with
// this name, and, unless empty, of this type and with this value.
type RecordMatch struct {
	ID    string `json:"id,omitempty"`
	Name  string `json:"name,omitempty"`
	Type  string `json:"type,omitempty"`
	Value string `json:"value,omitempty"`
}

// Option is one thing that `dns set` can set.
type Option struct {
	Name string
	Help string
	set  func(*ownerDNS, string) error
	get  func(*ownerDNS) string
}

// DNSOptions are the options, in the order in which they are shown.
var DNSOptions = []Option{
	{"ttl", "TTL of the network's own answers in seconds, 1 to 60",
		func(d *ownerDNS, v string) (err error) { d.TTL, err = number(v, 1, 60); return err },
		func(d *ownerDNS) string { return strconv.Itoa(cmp.Or(d.TTL, 5)) }},
	{"alias-days", "days for which a former name still leads to its device, 0 to 365",
		func(d *ownerDNS, v string) error {
			n, err := number(v, 0, maxAliasDays)
			d.AliasDays = &n
			return err
		},
		func(d *ownerDNS) string { return strconv.Itoa(d.aliasDays()) }},
	flag("lan-names-win", "short names of a device's own LAN come before the network's", func(d *ownerDNS) *bool { return &d.LANNamesWin }),
	flag("stop-rebinding", "take private addresses out of answers for public names", func(d *ownerDNS) *bool { return &d.StopRebinding }),
	{"rebinding-allowed", "names that may answer with private addresses all the same, separated by commas",
		func(d *ownerDNS, v string) error { d.RebindingAllowed = words(v); return nil },
		func(d *ownerDNS) string { return strings.Join(d.RebindingAllowed, ",") }},
	flag("keep-browsers", "ask browsers to leave their own DNS over HTTPS off", func(d *ownerDNS) *bool { return &d.KeepBrowsers }),
	{"serve-stale", "answer from expired data while all nameservers fail",
		func(d *ownerDNS, v string) (err error) { on, err := onOff(v); d.NoStale = !on; return err },
		func(d *ownerDNS) string { return onOffText(!d.NoStale) }},
	{"portal-url", "http:// address that answers 204 on an open network, to notice captive portals; empty for none",
		func(d *ownerDNS, v string) error { d.PortalURL = strings.TrimSpace(v); return nil },
		func(d *ownerDNS) string { return d.PortalURL }},
	flag("query-log", "devices log each question, names hashed", func(d *ownerDNS) *bool { return &d.QueryLog }),
}

func flag(name, help string, at func(*ownerDNS) *bool) Option {
	return Option{name, help,
		func(d *ownerDNS, v string) (err error) { *at(d), err = onOff(v); return err },
		func(d *ownerDNS) string { return onOffText(*at(d)) }}
}

// Value is the option's present value, as `dns set` takes it.
func (o Option) Value(i DNSInfo) string {
	d := ownerDNS{AliasDays: &i.AliasDays}
	d.TTL, d.LANNamesWin, d.StopRebinding, d.RebindingAllowed = i.TTL, i.LANNamesWin, i.StopRebinding, i.RebindingAllowed
	d.KeepBrowsers, d.NoStale, d.PortalURL, d.QueryLog = i.KeepBrowsers, i.NoStale, i.PortalURL, i.QueryLog
	return o.get(&d)
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

func servers(list []api.Nameserver) []dns.Nameserver {
	var out []dns.Nameserver
	for _, n := range list {
		out = append(out, dns.Nameserver{Address: strings.TrimSpace(n.Address), Bootstrap: n.Bootstrap})
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

// EditDNS changes what the owner decided. What cannot work is refused as a whole with
// ErrInvalid, ErrTaken or ErrNotFound.
type EditDNS struct{ DNSEdit }

func (EditDNS) operation() *Operation { return opDNSEdit }

func (c EditDNS) run(tx *Tx) (none struct{}, err error) {
	s := tx.s
	if err := tx.may(target{}); err != nil {
		return none, err
	}
	old, err := readNames(&tx.Reader, s.network)
	if err != nil {
		return none, err
	}
	next := &names{owner: old.owner, records: slices.Clone(old.records)}
	if err := s.applyDNS(tx, next, c.DNSEdit); err != nil {
		return none, err
	}
	next.build()
	if err := s.checkDNS(old, next); err != nil {
		return none, err
	}
	changed, err := s.storeDNS(tx, old, next)
	if err == nil && (changed || c.RemoveAlias != nil) {
		tx.did(target{kind: "dns"}, nil, c.DNSEdit)
	}
	return none, err
}

// applyDNS makes the edit in memory; an alias is ended at once.
func (s *Service) applyDNS(tx *Tx, n *names, e DNSEdit) error {
	if e.RemoveRecord != nil {
		if err := s.removeRecords(n, *e.RemoveRecord); err != nil {
			return err
		}
	}
	if e.AddRecord != nil {
		r, err := s.newRecord(tx, *e.AddRecord)
		if err != nil {
			return err
		}
		n.records = append(n.records, r)
	}
	if e.RemoveRoute != nil {
		suffix := routeSuffix(*e.RemoveRoute)
		had := len(n.owner.Routes)
		n.owner.Routes = slices.DeleteFunc(slices.Clone(n.owner.Routes), func(r dns.Route) bool { return r.Suffix == suffix })
		if len(n.owner.Routes) == had {
			return fmt.Errorf("route %q: %w", printable(*e.RemoveRoute, 80), ErrNotFound)
		}
	}
	if e.AddRoute != nil {
		r := dns.Route{Suffix: routeSuffix(e.AddRoute.Suffix), Nameservers: servers(e.AddRoute.Nameservers)}
		n.owner.Routes = append(slices.DeleteFunc(slices.Clone(n.owner.Routes), func(o dns.Route) bool { return o.Suffix == r.Suffix }), r)
		slices.SortFunc(n.owner.Routes, func(a, b dns.Route) int { return strings.Compare(a.Suffix, b.Suffix) })
	}
	if e.Nameservers != nil {
		n.owner.Nameservers = servers(*e.Nameservers)
	}
	if e.Search != nil {
		n.owner.Search = nil
		for _, d := range *e.Search {
			if d = routeSuffix(d); !slices.Contains(n.owner.Search, d) {
				n.owner.Search = append(n.owner.Search, d)
			}
		}
	}
	for name, value := range e.Options {
		i := slices.IndexFunc(DNSOptions, func(o Option) bool { return o.Name == name })
		if i < 0 {
			return Invalid("no option %q; the options are %s", printable(name, 40), optionNames())
		}
		if err := DNSOptions[i].set(&n.owner, value); err != nil {
			return Invalid("%s: %v", name, err)
		}
	}
	if e.RemoveAlias != nil {
		return s.removeAliasTx(tx, *e.RemoveAlias)
	}
	return nil
}

func optionNames() string {
	var l []string
	for _, o := range DNSOptions {
		l = append(l, o.Name)
	}
	return strings.Join(l, ", ")
}

// routeSuffix is a suffix as it is stored: ASCII, lower case, no dots at its
// ends. What cannot be one is left for the check.
func routeSuffix(text string) string {
	text = strings.Trim(strings.TrimSpace(text), ".")
	if ascii, err := dns.ASCIIName(text); err == nil {
		text = ascii
	}
	return strings.ToLower(text)
}

// newRecord is the record that was asked for, its name as it is stored.
func (s *Service) newRecord(tx *Tx, nr NewRecord) (store.DNSRecord, error) {
	r := store.DNSRecord{ID: newID(), Type: strings.ToUpper(strings.TrimSpace(nr.Type)), Value: strings.TrimSpace(nr.Value), TTL: nr.TTL, Created: s.now()}
	if r.Type == "TXT" {
		r.Value = nr.Value // spaces may be meant
	}
	if !slices.Contains(dns.RecordTypes, r.Type) {
		return r, Invalid("type %q: want one of %s", printable(nr.Type, 20), strings.Join(dns.RecordTypes, ", "))
	}
	var err error
	if r.Name, err = s.recordName(nr.Name, r.Type); err != nil {
		return r, err
	}
	switch {
	case r.Name == "@" || !strings.Contains(r.Name, "."):
	case r.Type == "PTR" && (isAddr(r.Name) || strings.HasSuffix(r.Name, ".arpa")):
	case strings.HasSuffix(r.Name, "."+s.suffix):
	case !nr.Outside:
		return r, Invalid("the name %s is not in %s; write %s.%s if that is meant, or allow names outside (--outside)", r.Name, s.suffix, r.Name, s.suffix)
	}
	if host := s.coversServer(r.Name); host != "" && s.fullName(r.Name) == host {
		return r, Invalid("%s is the server's own name: devices could not find the server", host)
	}
	if nr.Shadow || !slices.Contains([]string{"A", "AAAA", "CNAME"}, r.Type) {
		return r, nil
	}
	if node, err := tx.NodeByName(s.network, r.Name); err == nil {
		return r, fmt.Errorf("%s is the name of a device (%s), which wins over a record; rename the device, or allow it for the time when it is gone (--shadow): %w", r.Name, node.IPv4, ErrTaken)
	} else if !errors.Is(err, store.ErrNotFound) {
		return r, err
	}
	if a, err := tx.Alias(s.network, r.Name); err == nil {
		return r, fmt.Errorf("%s still leads to a device that had this name, until %s; end that with: weft-server dns aliases remove %s: %w", r.Name, a.Until.Format(time.DateOnly), r.Name, ErrTaken)
	} else if !errors.Is(err, store.ErrNotFound) {
		return r, err
	}
	return r, nil
}

func isAddr(s string) bool {
	_, err := netip.ParseAddr(s)
	return err == nil
}

// recordName makes the stored form of a record's name: a label or "@" for what
// is directly in the network's zone, else the full name.
func (s *Service) recordName(name, typ string) (string, error) {
	name = strings.TrimSpace(name)
	if a, err := netip.ParseAddr(name); err == nil && typ == "PTR" {
		return a.Unmap().WithZone("").String(), nil
	}
	if name == "@" {
		return name, nil
	}
	full := strings.TrimSuffix(name, ".")
	ascii, err := dns.ASCIIName(full)
	if err != nil {
		return "", Invalid("name %q: %v", printable(name, 80), err)
	}
	ascii = strings.ToLower(ascii)
	if ascii == "" {
		return "", Invalid("want a name, or @ for %s itself", s.suffix)
	}
	if ascii == s.suffix {
		return "@", nil
	}
	if label, ok := strings.CutSuffix(ascii, "."+s.suffix); ok && !strings.Contains(label, ".") {
		return label, nil
	}
	return ascii, nil
}

func (s *Service) removeRecords(n *names, m RecordMatch) error {
	name, err := "", error(nil)
	if m.ID == "" {
		if name, err = s.recordName(m.Name, strings.ToUpper(m.Type)); err != nil {
			return err
		}
		if a, err := netip.ParseAddr(m.Name); err == nil {
			name = a.Unmap().WithZone("").String()
		}
	}
	had := len(n.records)
	n.records = slices.DeleteFunc(n.records, func(r store.DNSRecord) bool {
		if m.ID != "" {
			return r.ID == m.ID
		}
		return r.Name == name && (m.Type == "" || strings.EqualFold(m.Type, r.Type)) && (m.Value == "" || m.Value == r.Value)
	})
	if len(n.records) == had {
		return fmt.Errorf("record %q: %w", printable(cmp.Or(m.ID, m.Name), 80), ErrNotFound)
	}
	return nil
}

// checkDNS refuses what the resolvers would leave out, and what would cut
// devices off.
func (s *Service) checkDNS(old, next *names) error {
	size := 0
	for _, r := range next.records {
		size += len(r.Name) + len(r.Value)
	}
	switch {
	case len(next.records) > dns.MaxRecords && len(next.records) > len(old.records):
		return Invalid("%d records, at most %d", len(next.records), dns.MaxRecords)
	case size > maxRecordBytes && len(next.records) > len(old.records):
		return Invalid("the records are %d bytes together, at most %d", size, maxRecordBytes)
	}
	// What was refused before does not stand in the way of something else: a
	// network's suffix may have changed.
	known := map[string]bool{}
	for _, p := range old.settings().Problems(s.suffix) {
		known[p.Text] = true
	}
	for _, p := range next.settings().Problems(s.suffix) {
		if !known[p.Text] {
			return Invalid("%s: %s", s.partName(next, p.Part), p.Text)
		}
	}
	for _, r := range next.owner.Routes {
		if host := s.coversServer(r.Suffix); host != "" && !slices.ContainsFunc(old.owner.Routes, func(o dns.Route) bool { return o.Suffix == r.Suffix }) {
			return Invalid("route %s: it covers the server's own name %s, which devices must find before they have a network", r.Suffix, host)
		}
		if err := checkServers(r.Nameservers); err != nil {
			return Invalid("route %s: %v", r.Suffix, err)
		}
	}
	if err := checkServers(next.owner.Nameservers); err != nil {
		return err
	}
	return nil
}

// partName says what a problem's part is: records[3] means nothing to people.
func (s *Service) partName(n *names, part string) string {
	var i int
	if _, err := fmt.Sscanf(part, "records[%d]", &i); err == nil && i < len(n.records) {
		return "record " + s.fullName(n.records[i].Name) + " " + n.records[i].Type
	}
	if _, err := fmt.Sscanf(part, "routes[%d]", &i); err == nil && i < len(n.owner.Routes) {
		return "route " + n.owner.Routes[i].Suffix
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
			return Invalid("nameserver %s: that is the devices' own resolver, which would ask itself", printable(n.Address, 80))
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

// storeDNS writes the difference, if there is one, and makes it a change of
// everybody's config.
func (s *Service) storeDNS(tx *Tx, old, next *names) (changed bool, err error) {
	was, err := json.Marshal(&old.owner)
	if err != nil {
		return false, err
	}
	text, err := json.Marshal(&next.owner)
	if err != nil {
		return false, err
	}
	changed = string(was) != string(text)
	if changed {
		if err := tx.SetDNS(s.network, string(text)); err != nil {
			return false, err
		}
	}
	has := func(list []store.DNSRecord, id string) bool {
		return slices.ContainsFunc(list, func(r store.DNSRecord) bool { return r.ID == id })
	}
	for _, r := range old.records {
		if !has(next.records, r.ID) {
			changed = true
			if err := tx.DeleteDNSRecord(s.network, r); err != nil {
				return false, err
			}
		}
	}
	for _, r := range next.records {
		if !has(old.records, r.ID) {
			changed = true
			if err := tx.InsertDNSRecord(s.network, r); err != nil {
				return false, err
			}
		}
	}
	if !changed {
		return false, nil
	}
	c, err := tx.BumpConfig(s.network)
	if err != nil {
		return false, err
	}
	tx.changed(c, store.DNSChanged, "")
	return true, nil
}

func number(text string, low, high int) (int, error) {
	n, err := strconv.Atoi(strings.TrimSpace(text))
	if err != nil || n < low || n > high {
		return 0, fmt.Errorf("want a number from %d to %d", low, high)
	}
	return n, nil
}

func onOff(text string) (bool, error) {
	switch strings.ToLower(strings.TrimSpace(text)) {
	case "on", "true", "yes", "1":
		return true, nil
	case "off", "false", "no", "0":
		return false, nil
	}
	return false, errors.New("want on or off")
}

func onOffText(on bool) string {
	if on {
		return "on"
	}
	return "off"
}

// words splits at commas and spaces.
func words(text string) []string {
	return strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == ' ' || r == '\n' || r == '\r' || r == '\t' })
}
