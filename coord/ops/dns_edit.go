package ops

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"weft/coord/store"
	"weft/dns"
	"weft/overlay/api"
)

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

// routeSuffix is a suffix as it is stored: ASCII, lower case, no dots at its
// ends. What cannot be one is left for the check.
func routeSuffix(text string) string {
	text = strings.Trim(strings.TrimSpace(text), ".")
	if ascii, err := dns.ASCIIName(text); err == nil {
		text = ascii
	}
	return strings.ToLower(text)
}

func servers(list []api.Nameserver) []dns.Nameserver {
	var out []dns.Nameserver
	for _, n := range list {
		out = append(out, dns.Nameserver{Address: strings.TrimSpace(n.Address), Bootstrap: n.Bootstrap})
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
