package ops

import (
	"cmp"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"time"

	"weft/coord/store"
	"weft/dns"
	"weft/overlay/api"
)

// NewRecord is a record to add. Name is short ("www"), "@" for the zone itself, or a full name
// in the network's zone. Names of other zones need Outside.
type NewRecord struct {
	api.DNSRecord
	Outside bool `json:"outside"` // confirms that the name is meant to be outside the network's zone
	Shadow  bool `json:"shadow"`  // allows a name that a device has; the device wins while it has the name
}

// RecordMatch selects the records to remove: the one with ID, or, if ID is empty, those with
// Name and, unless empty, Type and Value.
type RecordMatch struct {
	ID    string `json:"id,omitempty"`
	Name  string `json:"name,omitempty"`
	Type  string `json:"type,omitempty"`
	Value string `json:"value,omitempty"`
}

// newRecord checks a record to add, and returns it as it is stored.
func (s *Service) newRecord(tx *Tx, nr NewRecord) (store.DNSRecord, error) {
	r := store.DNSRecord{ID: newID(), DNSRecord: nr.DNSRecord, Created: s.now()}
	if r.Type = strings.ToUpper(strings.TrimSpace(nr.Type)); r.Type != "TXT" { // in TXT spaces may be intended
		r.Value = strings.TrimSpace(nr.Value)
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
		return r, Invalid("the name %s is not in %s; write %s.%s if that is meant, or confirm that the name is outside (--outside, or the box in the console)", r.Name, s.suffix, r.Name, s.suffix)
	}
	if host := s.coversServer(r.Name); host != "" && s.fullName(r.Name) == host {
		return r, Invalid("%s is the server's own name: devices could not find the server", host)
	}
	if nr.Shadow || !slices.Contains([]string{"A", "AAAA", "CNAME"}, r.Type) {
		return r, nil
	}
	if node, err := tx.NodeByName(s.network, r.Name); err == nil {
		return r, inTheWay("%s is the name of a device (%s), which wins over a record; rename the device, or make a record for the time when no device has the name (weft-server dns records add --shadow)", r.Name, node.IPv4)
	} else if !errors.Is(err, store.ErrNotFound) {
		return r, err
	}
	if a, err := tx.Alias(s.network, r.Name); err == nil {
		return r, inTheWay("%s still leads to a device that had this name, until %s; end that former name first (weft-server dns aliases remove %s)", r.Name, a.Until.Format(time.DateOnly), r.Name)
	} else if !errors.Is(err, store.ErrNotFound) {
		return r, err
	}
	return r, nil
}

func isAddr(s string) bool {
	_, err := netip.ParseAddr(s)
	return err == nil
}

// recordName returns a record's name as it is stored: one label for a name directly below the
// network's zone, "@" for the zone itself, else the full name.
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

func (s *Service) removeRecords(n *store.DNS, m RecordMatch) error {
	name, err := "", error(nil)
	if m.ID == "" {
		if name, err = s.recordName(m.Name, strings.ToUpper(m.Type)); err != nil {
			return err
		}
		if a, err := netip.ParseAddr(m.Name); err == nil {
			name = a.Unmap().WithZone("").String()
		}
	}
	had := len(n.Records)
	n.Records = slices.DeleteFunc(n.Records, func(r store.DNSRecord) bool {
		if m.ID != "" {
			return r.ID == m.ID
		}
		return r.Name == name && (m.Type == "" || strings.EqualFold(m.Type, r.Type)) && (m.Value == "" || m.Value == r.Value)
	})
	if len(n.Records) == had {
		return About(KindRecord, cmp.Or(m.ID, m.Name), ErrNotFound)
	}
	return nil
}
