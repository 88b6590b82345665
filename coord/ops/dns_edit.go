package ops

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"weft/coord/store"
	"weft/dns"
	"weft/overlay/api"
)

// DNSEdit is a change of the DNS settings. The fields that are set are applied in this order,
// and either all of them or none.
type DNSEdit struct {
	RemoveRecord *RecordMatch      `json:"remove_record,omitempty"`
	AddRecord    *NewRecord        `json:"add_record,omitempty"`
	RemoveRoute  *string           `json:"remove_route,omitempty"`
	AddRoute     *api.DNSRoute     `json:"add_route,omitempty"`    // replaces a route with the same suffix
	Nameservers  *[]api.Nameserver `json:"nameservers,omitempty"`  // the new list
	Search       *[]string         `json:"search,omitempty"`       // the new list
	Options      map[string]string `json:"options,omitempty"`      // values by the names in DNSOptions
	RemoveAlias  *string           `json:"remove_alias,omitempty"` // a former name
}

// EditDNS changes the DNS settings. If any part of the change cannot work, nothing is
// changed and the error is ErrInvalid, ErrTaken or ErrNotFound.
type EditDNS struct {
	DNSEdit
	Match []string // DNSInfo.Revision must be one of these; nil for any
}

func (EditDNS) operation() *Operation { return opDNSEdit }

func (c EditDNS) run(tx *Tx) (none struct{}, err error) {
	s := tx.s
	if err := tx.may(target{}); err != nil {
		return none, err
	}
	old, err := tx.DNS(s.network)
	if err != nil {
		return none, err
	}
	if err := matches(c.Match, dnsRevision(&old)); err != nil {
		return none, fmt.Errorf("names: %w", err)
	}
	next := old.WithRecords(slices.Clone(old.Records))
	if err := s.applyDNS(tx, &next, c.DNSEdit); err != nil {
		return none, err
	}
	next = next.WithRecords(next.Records)
	if err := s.checkDNS(&old, &next); err != nil {
		return none, err
	}
	changed, err := s.storeDNS(tx, &old, &next)
	if err == nil && (changed || c.RemoveAlias != nil) {
		tx.did(target{kind: "dns"}, nil, c.DNSEdit)
	}
	return none, err
}

// applyDNS applies an edit to n, except that it deletes an alias in the transaction at once.
// Lists in n may be nil afterwards.
func (s *Service) applyDNS(tx *Tx, n *store.DNS, e DNSEdit) error {
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
		n.Records = append(n.Records, r)
	}
	if e.RemoveRoute != nil {
		suffix := routeSuffix(*e.RemoveRoute)
		had := len(n.Routes)
		n.Routes = slices.DeleteFunc(slices.Clone(n.Routes), func(r api.DNSRoute) bool { return r.Suffix == suffix })
		if len(n.Routes) == had {
			return About(KindRoute, *e.RemoveRoute, ErrNotFound)
		}
	}
	if e.AddRoute != nil {
		r := api.DNSRoute{Suffix: routeSuffix(e.AddRoute.Suffix), Nameservers: trimmed(e.AddRoute.Nameservers)}
		n.Routes = append(slices.DeleteFunc(slices.Clone(n.Routes), func(o api.DNSRoute) bool { return o.Suffix == r.Suffix }), r)
		slices.SortFunc(n.Routes, func(a, b api.DNSRoute) int { return strings.Compare(a.Suffix, b.Suffix) })
	}
	if e.Nameservers != nil {
		n.Nameservers = trimmed(*e.Nameservers)
	}
	if e.Search != nil {
		n.Search = nil
		for _, d := range *e.Search {
			if d = routeSuffix(d); !slices.Contains(n.Search, d) {
				n.Search = append(n.Search, d)
			}
		}
	}
	for name, value := range e.Options {
		i := slices.IndexFunc(DNSOptions, func(o Option) bool { return o.Name == name })
		if i < 0 {
			return Invalid("no option %q; the options are %s", printable(name, 40), optionNames())
		}
		if err := DNSOptions[i].set(n, value); err != nil {
			return Invalid("%s: %v", name, err)
		}
	}
	if e.RemoveAlias != nil {
		return s.removeAliasTx(tx, *e.RemoveAlias)
	}
	return nil
}

// routeSuffix returns a suffix as it is stored: in ASCII and lower case, without dots at its
// ends. checkDNS refuses what is not valid.
func routeSuffix(text string) string {
	text = strings.Trim(strings.TrimSpace(text), ".")
	if ascii, err := dns.ASCIIName(text); err == nil {
		text = ascii
	}
	return strings.ToLower(text)
}

func trimmed(list []api.Nameserver) []api.Nameserver {
	list = slices.Clone(list)
	for i := range list {
		list[i].Address = strings.TrimSpace(list[i].Address)
	}
	return list
}

// storeDNS writes the difference between old and next. If there is one, it raises the config
// version of all nodes.
func (s *Service) storeDNS(tx *Tx, old, next *store.DNS) (changed bool, err error) {
	if changed = !reflect.DeepEqual(old.WithRecords(nil), next.WithRecords(nil)); changed {
		if err := tx.SetDNS(s.network, *next); err != nil {
			return false, err
		}
	}
	has := func(list []store.DNSRecord, id string) bool {
		return slices.ContainsFunc(list, func(r store.DNSRecord) bool { return r.ID == id })
	}
	for _, r := range old.Records {
		if !has(next.Records, r.ID) {
			changed = true
			if err := tx.DeleteDNSRecord(s.network, r); err != nil {
				return false, err
			}
		}
	}
	for _, r := range next.Records {
		if !has(old.Records, r.ID) {
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
