package status

import (
	"encoding/json"
	"flag"
	"testing"
	"time"

	"weft/overlay/api/wiretest"
)

var update = flag.Bool("update", false, "record what is not recorded yet")

// The contract status/1: users' scripts read it, so no field is removed or changes its
// type, and empty fields are present. An older weft can show the status of a later
// daemon.
func TestRecordedStatus(t *testing.T) {
	at := time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC)
	ms, packets := 1.9, uint64(1234)
	full := Status{
		Schema: Schema, State: StateRunning, Network: "00112233445566778899aabbccddeeff", Version: "1.0", Time: &at,
		Server: ServerStatus{URL: "https://weft.example:8443", Online: true},
		Self:   SelfStatus{ID: "aa", Name: "laptop", FQDN: "laptop.weft.internal", IPv4: "100.64.0.2", IPv6: "fd00::2", Online: true, Relay: "server", CertificateExpires: &at},
		Peers: []PeerStatus{{ID: "bb", Name: "kitchen-pi", FQDN: "kitchen-pi.weft.internal", IPv4: "100.64.0.1", IPv6: "fd00::1", Online: true, PresenceAt: &at, Path: PathDirect, PathReason: "", PathNote: "same network",
			Relay: "server", Endpoint: "198.51.100.4:41641", RTTms: &ms, RxBytes: 1, TxBytes: 2, LastHandshake: &at, LastSeen: &at, KeyExchange: "X25519MLKEM768", Suite: "aes", KeysSince: &at, KeysPackets: &packets}},
		Health: []Health{{Code: "server-offline", Message: "the server does not answer"}},
	}
	signIn := full
	signIn.Self.SignIn = &SignIn{Due: at, Soon: true, Overdue: true}
	empty := Status{Schema: Schema, State: StateUnjoined, Peers: []PeerStatus{{}}, Health: []Health{}}
	for name, st := range map[string]Status{"status-1": full, "status-1-empty": empty, "status-1-sign-in": signIn} {
		doc, err := json.Marshal(st)
		if err != nil {
			t.Fatal(err)
		}
		wiretest.Golden(t, "testdata/"+name+".json", doc, *update)
		var again Status
		if err := json.Unmarshal(wiretest.Later(t, doc), &again); err != nil {
			t.Fatal(err)
		}
		if b, _ := json.Marshal(again); string(b) != string(doc) {
			t.Errorf("%s: got %s, want %s", name, b, doc)
		}
	}
}
