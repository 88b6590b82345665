package store

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"weft/overlay/api"
)

// What servers stored before is read, with the default for what they did not know, and
// comes back as it was. No list is nil: programs get [] of what is empty.
func TestDNSSettings(t *testing.T) {
	s, _ := fresh(t, Options{})
	id := network
	read := func() (d DNS) {
		t.Helper()
		if err := s.Read(t.Context(), func(r *Reader) (err error) { d, err = r.DNS(id); return err }); err != nil {
			t.Fatal(err)
		}
		return d
	}
	empty := func(d DNS) {
		t.Helper()
		text, err := json.Marshal(d)
		if err != nil || strings.Contains(string(text), "null") {
			t.Errorf("%s, %v", text, err)
		}
	}
	d := read()
	if empty(d); d.AliasDays != DefaultAliasDays {
		t.Errorf("days of a former name: %d", d.AliasDays)
	}
	store := func(text string) {
		t.Helper()
		if err := s.Write(t.Context(), func(tx *Tx) error { return tx.changed(`UPDATE networks SET dns=$2 WHERE network_id=$1`, id[:], text) }); err != nil {
			t.Fatal(err)
		}
	}
	store(`{"search":null,"lan_names_win":true,"nameservers":[{"address":"192.0.2.1","bootstrap":null}],"routes":[{"suffix":"corp.example","nameservers":null}],"records":null,"aliases":null,"wildcards":null,"ttl":30,"stop_rebinding":false,"rebinding_allowed":null,"keep_browsers":false,"no_stale":false,"portal_url":"","query_log":false}`)
	d = read()
	if empty(d); d.AliasDays != DefaultAliasDays || !d.LANNamesWin || d.TTL != 30 || d.Nameservers[0].Address != "192.0.2.1" || d.Routes[0].Suffix != "corp.example" {
		t.Errorf("%+v", d)
	}
	d.AliasDays = 0
	d = d.WithRecords([]DNSRecord{{ID: "r1", DNSRecord: api.DNSRecord{Name: "www", Type: "A", Value: "192.0.2.80", TTL: 60}, Created: day}})
	err := s.Write(t.Context(), func(tx *Tx) error {
		if err := tx.InsertDNSRecord(id, d.Records[0]); err != nil {
			return err
		}
		return tx.SetDNS(id, d)
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := read(); !reflect.DeepEqual(got, d) {
		t.Errorf("stored %+v\nread   %+v", d, got)
	}
	if d.DNS.Records[0] != (api.DNSRecord{Name: "www", Type: "A", Value: "192.0.2.80", TTL: 60}) {
		t.Errorf("for nodes: %+v", d.DNS.Records)
	}
}
