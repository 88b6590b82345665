package intro

import (
	"encoding/json"
	"flag"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"weft/overlay/api/wiretest"
)

var update = flag.Bool("update", false, "record what is not recorded yet")

// Every message and session frame of protocol 1: today's code writes them with all
// fields, reads them, and ignores what a later version adds.
func TestRecordedMessages(t *testing.T) {
	key := [32]byte{31: 7}
	messages := map[string]Message{
		"hello":        {Type: TypeHello, Boot: 1<<63 + 1, Key: key[:], CRL: 1795818355, Glare: 9},
		"accept":       {Type: TypeAccept, Boot: 2, Key: key[:], CRL: 3},
		"hello-proof":  {Type: TypeHello, Boot: 1, Key: key[:], Proof: key[:]},
		"accept-proof": {Type: TypeAccept, Proof: key[:]},
		"deny":         {Type: TypeDeny, Reason: DenyPolicy, Text: "not allowed"},
		"candidates":   {Type: TypeCandidates, Candidates: []Candidate{{Addr: netip.MustParseAddrPort("192.0.2.7:41641"), Kind: "host"}, {Addr: netip.MustParseAddrPort("[2001:db8::7]:1")}}, NAT4: "easy", NAT6: "hard"},
		"call-me":      {Type: TypeCallMe, Candidates: []Candidate{{Addr: netip.MustParseAddrPort("192.0.2.7:41641"), Kind: "stun"}}},
		"ping":         {Type: TypePing, Nonce: 5},
		"pong":         {Type: TypePong, Nonce: 5},
		"bye":          {Type: TypeBye},
		"crl":          {Type: TypeCRL, Number: 6, Total: 300, Offset: 100, Data: []byte("piece"), Pause: true},
		"crl-next":     {Type: TypeCRLNext, Number: 6, Offset: 200},
	}
	doc, err := json.Marshal(messages)
	if err != nil {
		t.Fatal(err)
	}
	wiretest.Golden(t, "testdata/messages-1.json", doc, *update)
	for name, m := range messages {
		body, _ := json.Marshal(m)
		framed, err := appendMessage(nil, m)
		if err != nil || string(framed[2:]) != string(body) {
			t.Errorf("%s: %q, %v", name, framed, err)
		}
		for _, b := range [][]byte{body, wiretest.Later(t, body)} {
			if got, err := parseMessage(b); err != nil || !reflect.DeepEqual(got, m) {
				t.Errorf("%s: %+v, %v", name, got, err)
			}
		}
	}
	frames := map[string][]byte{}
	for name, f := range map[string]frame{
		"open":  {id: 0x0102030405060708, kind: kindOpen, payload: []byte("hi")},
		"data":  {id: 0x0102030405060708, seq: 3, kind: kindData, payload: []byte("more")},
		"bye":   {id: 0x0102030405060708, seq: 4, kind: kindBye},
		"reset": {id: 0x0102030405060708, kind: kindReset},
		"lost":  {kind: kindReset},
	} {
		frames[name] = appendFrame(nil, f)
		got, err := parseFrame(frames[name])
		if err != nil || got.id != f.id || got.seq != f.seq || got.kind != f.kind || string(got.payload) != string(f.payload) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	wiretest.GoldenBytes(t, "testdata/frames-1.json", frames, *update)
}

// An unknown verdict does not count as accept; a frame of an unknown kind is refused.
func TestUnknownWords(t *testing.T) {
	if err := verdict(Message{Type: "accept-with-care"}); err == nil || !strings.Contains(err.Error(), "accept-with-care") {
		t.Errorf("got %v", err)
	}
	err := verdict(Message{Type: TypeDeny, Reason: "moon", Text: "it is full"})
	if d, ok := err.(*DenyError); !ok || !strings.Contains(d.Error(), "it is full") {
		t.Errorf("got %v", err)
	}
	for k := range 256 {
		_, err := parseFrame(appendFrame(nil, frame{id: 1, kind: kind(k)}))
		if (err == nil) != (k >= int(kindOpen) && k <= int(kindReset)) {
			t.Errorf("kind %d: %v", k, err)
		}
	}
	if _, err := (Message{Type: "hello2", Key: make([]byte, 32)}).hello(); err == nil {
		t.Error("another message was taken for a hello")
	}
}
