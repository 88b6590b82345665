package intro

import (
	"bytes"
	"reflect"
	"testing"

	"weft/overlay/cert"
)

func FuzzFrame(f *testing.F) {
	f.Add([]byte{})
	f.Add(appendFrame(nil, frame{id: 1, kind: kindOpen, payload: []byte("hello")}))
	f.Add(appendFrame(nil, frame{id: 1, seq: 7, kind: kindBye}))
	f.Add(appendFrame(nil, frame{kind: kindReset}))
	f.Add(make([]byte, MaxFrame+1))
	f.Fuzz(func(t *testing.T, b []byte) {
		fr, err := parseFrame(b)
		if err != nil {
			return
		}
		if got := appendFrame(nil, fr); !bytes.Equal(got, b) {
			t.Errorf("%x parsed and written again is %x", b, got)
		}
	})
}

func FuzzMessage(f *testing.F) {
	for _, m := range []Message{
		{Type: TypePing, Nonce: 1<<64 - 1},
		Hello{Boot: 1, Key: [32]byte{1}, CRL: 2}.message(),
		{Type: TypeHello, Key: make([]byte, 32), Proof: make([]byte, 32)},
		{Type: TypeAccept, Proof: []byte{1}},
		{Type: TypeCandidates, Candidates: make([]Candidate, 1)},
		{Type: TypeCRL, Number: 1, Total: 3, Data: []byte{1, 2, 3}, Pause: true},
	} {
		b, err := appendMessage(nil, m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte{0xff, 0xff})
	f.Add([]byte("\x00\x02{}"))
	f.Add([]byte("\x00\x24" + `{"type":"candidates","candidates":1}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, rest, err := cutMessage(b)
		if err != nil {
			return
		}
		if len(rest) >= len(b) || len(m.Candidates) > MaxCandidates || m.Type == "" {
			t.Errorf("%q parsed to %+v, rest %q", b, m, rest)
		}
		m.hello()
		again, err := appendMessage(nil, m)
		if err != nil {
			return // longer when we encode it
		}
		if m2, _, err := cutMessage(again); err != nil || !reflect.DeepEqual(canonical(m), canonical(m2)) {
			t.Errorf("%+v written and parsed again is %+v, %v", m, m2, err)
		}
	})
}

// canonical makes empty fields absent.
func canonical(m Message) Message {
	if len(m.Candidates) == 0 {
		m.Candidates = nil
	}
	if len(m.Data) == 0 {
		m.Data = nil
	}
	if len(m.Key) == 0 {
		m.Key = nil
	}
	if len(m.Proof) == 0 {
		m.Proof = nil
	}
	return m
}

// FuzzDeliver passes raw frames to a Switch: it must neither panic nor block, and its
// tables stay within their bounds.
func FuzzDeliver(f *testing.F) {
	f.Add(byte(1), appendFrame(nil, frame{id: 1, kind: kindOpen, payload: []byte{22, 3, 1, 0, 5, 1, 0, 0, 1, 0}}))
	f.Add(byte(2), appendFrame(nil, frame{id: 1, seq: 1, kind: kindData, payload: []byte("x")}))
	f.Add(byte(3), appendFrame(nil, frame{kind: kindReset}))
	w := newNetwork(f)
	n := w.node("n")
	f.Fuzz(func(t *testing.T, from byte, b []byte) {
		n.Deliver(cert.NodeID{15: from}, b)
		n.Deliver(cert.NodeID{15: from}, b)
		if sessions, half := n.table(); half > maxHalfOpen || sessions > maxHalfOpen {
			t.Errorf("%d sessions, %d half open", sessions, half)
		}
	})
}
