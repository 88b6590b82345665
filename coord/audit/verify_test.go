package audit

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"iter"
	"slices"
	"testing"

	"weft/overlay/cert"
)

// chain is an audit in memory.
type chain struct {
	t      testing.TB
	ca     *cert.CA
	claims Claims
	rows   []Row
}

func newCA(t testing.TB) *cert.CA {
	t.Helper()
	ca, err := cert.NewCA("test", day)
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

// newChain makes n records and signs.
func newChain(t testing.TB, n int) *chain {
	t.Helper()
	ca := newCA(t)
	c := &chain{t: t, ca: ca, claims: Claims{Network: cert.PinOf(ca.Cert).NetworkID(), CAs: []*x509.Certificate{ca.Cert}}}
	for i := range n {
		r := rename(i + 1)
		c.rows = append(c.rows, Row{Seq: r.Seq, Record: encoded(t, r), Columns: r.Columns()})
	}
	c.chain()
	c.sign(ca)
	return c
}

// chain makes all hashes anew.
func (c *chain) chain() {
	h := Genesis(c.claims.Network)
	for i := range c.rows {
		h = h.Next(c.rows[i].Record)
		c.rows[i].Hash = bytes.Clone(h[:])
	}
}

func (c *chain) at(i int) Head {
	if i == 0 {
		return Head{Network: c.claims.Network, Hash: Genesis(c.claims.Network)}
	}
	return Head{Network: c.claims.Network, Seq: c.rows[i-1].Seq, Hash: Hash(c.rows[i-1].Hash)}
}

func (c *chain) signed(i int, ca *cert.CA) *Head {
	c.t.Helper()
	h, err := c.at(i).Sign(ca.Key, day)
	if err != nil {
		c.t.Fatal(err)
	}
	return &h
}

func (c *chain) sign(ca *cert.CA) { c.claims.Head = c.signed(len(c.rows), ca) }

// trim removes the first n rows.
func (c *chain) trim(n int) {
	c.t.Helper()
	p, err := Checkpoint(c.at(n)).Sign(c.ca.Key, day)
	if err != nil {
		c.t.Fatal(err)
	}
	c.claims.Checkpoint, c.rows = &p, c.rows[n:]
}

// set replaces record i, columns and all, but not its hash.
func (c *chain) set(i int, r Record) {
	c.rows[i-1].Record, c.rows[i-1].Columns = encoded(c.t, r), r.Columns()
}

func (c *chain) seq() iter.Seq2[Row, error] {
	return func(yield func(Row, error) bool) {
		for _, r := range c.rows {
			if !yield(r, nil) {
				return
			}
		}
	}
}

// wants checks what Verify says: "" for nothing.
func (c *chain) wants(kind Kind, seq uint64) {
	c.t.Helper()
	_, err := Verify(c.seq(), c.claims)
	var f *Fault
	switch {
	case kind == "" && err != nil:
		c.t.Errorf("a good audit: %v", err)
	case kind != "" && (!errors.As(err, &f) || f.Kind != kind || f.Seq != seq):
		c.t.Errorf("%v, want %s at %d", err, kind, seq)
	}
}

func TestVerify(t *testing.T) {
	for name, test := range map[string]func(*testing.T, *chain){
		"good":                func(t *testing.T, c *chain) { c.wants("", 0) },
		"with an older head":  func(t *testing.T, c *chain) { c.claims.Outside = c.signed(5, c.ca); c.wants("", 0) },
		"with the first head": func(t *testing.T, c *chain) { c.claims.Outside = c.signed(0, c.ca); c.wants("", 0) },
		"with the same head":  func(t *testing.T, c *chain) { c.claims.Outside = c.claims.Head; c.wants("", 0) },
		"one changed":         func(t *testing.T, c *chain) { r := rename(4); r.User = "mallory"; c.set(4, r); c.wants(Changed, 4) },
		"hash changed":        func(t *testing.T, c *chain) { c.rows[3].Hash[5]++; c.wants(Changed, 4) },
		"hash cut":            func(t *testing.T, c *chain) { c.rows[3].Hash = nil; c.wants(Changed, 4) },
		"one missing":         func(t *testing.T, c *chain) { c.rows = slices.Delete(c.rows, 3, 4); c.wants(Missing, 4) },
		"three missing":       func(t *testing.T, c *chain) { c.rows = slices.Delete(c.rows, 3, 6); c.wants(Missing, 4) },
		"the first missing":   func(t *testing.T, c *chain) { c.rows = c.rows[1:]; c.wants(Missing, 1) },
		"the last missing":    func(t *testing.T, c *chain) { c.rows = c.rows[:9]; c.wants(Cut, 10) },
		"the end missing":     func(t *testing.T, c *chain) { c.rows = c.rows[:6]; c.wants(Cut, 7) },
		"all missing":         func(t *testing.T, c *chain) { c.rows = nil; c.wants(Cut, 1) },
		"all and head missing": func(t *testing.T, c *chain) {
			c.claims.Outside, c.claims.Head, c.rows = c.claims.Head, nil, nil
			c.wants(Cut, 1)
		},
		"two rows swapped":   func(t *testing.T, c *chain) { c.rows[2], c.rows[6] = c.rows[6], c.rows[2]; c.wants(Reordered, 3) },
		"neighbours swapped": func(t *testing.T, c *chain) { c.rows[2], c.rows[3] = c.rows[3], c.rows[2]; c.wants(Reordered, 3) },
		"two contents swapped": func(t *testing.T, c *chain) {
			a, b := &c.rows[2], &c.rows[6]
			*a, *b = *b, *a
			a.Seq, b.Seq = 3, 7
			c.wants(Reordered, 3)
		},
		"one moved to the end": func(t *testing.T, c *chain) {
			r := c.rows[3]
			c.rows = append(slices.Delete(c.rows, 3, 4), r)
			c.wants(Reordered, 4)
		},
		"one twice":              func(t *testing.T, c *chain) { c.rows = slices.Insert(c.rows, 5, c.rows[4]); c.wants(Duplicated, 5) },
		"one in another's stead": func(t *testing.T, c *chain) { c.rows[5] = c.rows[3]; c.rows[5].Seq = 6; c.wants(Duplicated, 6) },
		"added unsigned": func(t *testing.T, c *chain) {
			c.claims.Head = c.signed(8, c.ca)
			c.wants(Added, 9)
		},
		"not a record": func(t *testing.T, c *chain) { c.rows[4].Record = []byte("x"); c.wants(Changed, 5) },
		"no head":      func(t *testing.T, c *chain) { c.claims.Head = nil; c.wants(Unsigned, 10) },
		"rewritten without the key, old signature": func(t *testing.T, c *chain) {
			c.set(4, rename(4).by("mallory"))
			c.chain()
			h := c.at(10)
			h.At, h.Signature = c.claims.Head.At, c.claims.Head.Signature
			c.claims.Head = &h
			c.wants(Unsigned, 10)
		},
		"rewritten without the key, old head": func(t *testing.T, c *chain) {
			c.set(4, rename(4).by("mallory"))
			c.chain()
			c.wants(Rewritten, 10)
		},
		"rewritten with another key": func(t *testing.T, c *chain) {
			c.set(4, rename(4).by("mallory"))
			c.chain()
			c.sign(newCA(t))
			c.wants(Unsigned, 10)
		},
		"rewritten with the key": func(t *testing.T, c *chain) {
			before, after := c.signed(3, c.ca), c.signed(6, c.ca)
			c.set(4, rename(4).by("mallory"))
			c.chain()
			c.sign(c.ca)
			c.wants("", 0) // nothing in the database tells
			c.claims.Outside = before
			c.wants("", 0)
			c.claims.Outside = after
			c.wants(Rewritten, 6)
		},
		"cut with the key": func(t *testing.T, c *chain) {
			c.claims.Outside = c.claims.Head
			c.rows = c.rows[:6]
			c.sign(c.ca)
			c.wants(Cut, 7)
		},
		"changed with its hash": func(t *testing.T, c *chain) {
			c.set(4, rename(4).by("mallory"))
			h := c.at(3).Hash.Next(c.rows[3].Record)
			c.rows[3].Hash = h[:]
			c.wants(Changed, 5) // the first that does not fit, and it says that the one before may be it
		},
		"of another network": func(t *testing.T, c *chain) {
			other := newChain(t, 10)
			other.claims, other.ca = c.claims, c.ca
			other.wants(Changed, 1)
		},
		"head of another network": func(t *testing.T, c *chain) {
			c.claims.Head = newChain(t, 10).claims.Head
			c.wants(Unsigned, 10)
		},
		"CA of another network": func(t *testing.T, c *chain) {
			c.claims.CAs = newChain(t, 1).claims.CAs
			c.wants(Unsigned, 10)
		},
		"outside head of another network": func(t *testing.T, c *chain) {
			c.claims.Outside = newChain(t, 10).claims.Head
			var f *Fault
			if _, err := Verify(c.seq(), c.claims); !errors.Is(err, ErrUnsigned) || errors.As(err, &f) {
				t.Error(err)
			}
		},
		"trimmed":                   func(t *testing.T, c *chain) { c.trim(4); c.wants("", 0) },
		"trimmed twice":             func(t *testing.T, c *chain) { c.trim(4); c.trim(3); c.wants("", 0) },
		"all trimmed":               func(t *testing.T, c *chain) { c.trim(10); c.wants("", 0) },
		"trimmed, one more missing": func(t *testing.T, c *chain) { c.trim(4); c.rows = c.rows[1:]; c.wants(Missing, 5) },
		"trimmed, one back": func(t *testing.T, c *chain) {
			r := c.rows[3]
			c.trim(4)
			c.rows = slices.Insert(c.rows, 0, r)
			c.wants(Added, 4)
		},
		"trimmed without checkpoint": func(t *testing.T, c *chain) { c.trim(4); c.claims.Checkpoint = nil; c.wants(Missing, 1) },
		"trimmed further than signed": func(t *testing.T, c *chain) {
			h := Checkpoint(c.at(6))
			c.trim(4)
			h.At, h.Signature = c.claims.Checkpoint.At, c.claims.Checkpoint.Signature
			c.rows, c.claims.Checkpoint = c.rows[2:], &h
			c.wants(Unsigned, 6)
		},
		"a head for a checkpoint": func(t *testing.T, c *chain) {
			h := Checkpoint(*c.signed(6, c.ca))
			c.rows, c.claims.Checkpoint = c.rows[6:], &h
			c.wants(Unsigned, 6)
		},
		"trimmed, outside head at the checkpoint": func(t *testing.T, c *chain) {
			c.claims.Outside = c.signed(4, c.ca)
			c.trim(4)
			c.wants("", 0)
			c.claims.Outside.Hash[0]++
			c.claims.Outside, _ = resign(c.claims.Outside, c.ca)
			c.wants(Rewritten, 4)
		},
		"trimmed, outside head before": func(t *testing.T, c *chain) {
			c.claims.Outside = c.signed(3, c.ca)
			if r, err := Verify(c.seq(), c.claims); err != nil || !r.Compared || r.First != 1 || r.Last != 10 {
				t.Error(r, err)
			}
			c.trim(4)
			if r, err := Verify(c.seq(), c.claims); err != nil || r.Compared || r.First != 5 || r.Last != 10 {
				t.Error(r, err)
			}
		},
		"none": func(t *testing.T, c *chain) { c.rows, c.claims.Head = nil, nil; c.wants("", 0) },
		"none, and a head": func(t *testing.T, c *chain) {
			c.rows = nil
			h, _ := c.at(0).Sign(c.ca.Key, day)
			c.claims.Head = &h
			c.wants("", 0)
		},
		"cannot be read": func(t *testing.T, c *chain) {
			boom := errors.New("boom")
			rows := func(yield func(Row, error) bool) { _ = yield(c.rows[0], nil) && yield(Row{}, boom) }
			if _, err := Verify(rows, c.claims); !errors.Is(err, boom) {
				t.Error(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) { test(t, newChain(t, 10)) })
	}
}

func (r Record) by(user string) Record { r.User = user; return r }

func resign(h *Head, ca *cert.CA) (*Head, error) {
	signed, err := h.Sign(ca.Key, day)
	return &signed, err
}

// Whatever byte of a row is another one, it is this row that is named.
func TestEveryByte(t *testing.T) {
	c := newChain(t, 3)
	good := c.rows[1]
	try := func(what string, row Row) {
		t.Helper()
		c.rows[1] = row
		_, err := Verify(c.seq(), c.claims)
		var f *Fault
		if !errors.As(err, &f) || f.Seq != 2 {
			t.Errorf("%s: %v", what, err)
		}
	}
	for i := range good.Record {
		for _, bit := range []byte{1, 0x20, 0x80} {
			row := good
			row.Record = bytes.Clone(good.Record)
			row.Record[i] ^= bit
			try("record", row)
		}
	}
	for i := range good.Hash {
		row := good
		row.Hash = bytes.Clone(good.Hash)
		row.Hash[i] ^= 1
		try("hash", row)
	}
	for what, change := range map[string]func(*Columns){
		"at":          func(c *Columns) { c.At++ },
		"op":          func(c *Columns) { c.Op = "device.delete" },
		"user_name":   func(c *Columns) { c.User = "bob" },
		"user_id":     func(c *Columns) { c.UserID = "" },
		"target_id":   func(c *Columns) { c.TargetID = "x" },
		"target_name": func(c *Columns) { c.Target = "x" },
	} {
		row := good
		change(&row.Columns)
		try(what, row)
	}
	c.rows[1] = good
	c.wants("", 0)
}

// Verifying takes no memory for a row.
func TestVerifyAllocations(t *testing.T) {
	count := func(n int) float64 {
		c := newChain(t, n)
		return testing.AllocsPerRun(5, func() { c.wants("", 0) })
	}
	if few, many := count(10), count(2000); many > few+20 {
		t.Errorf("%v allocations for 10 records, %v for 2000", few, many)
	}
}

// A signature of one thing is none of another, whatever the bytes.
func TestDomains(t *testing.T) {
	c := newChain(t, 1)
	h := *c.claims.Head
	if err := Checkpoint(h).Verify(h.Network, c.claims.CAs); !errors.Is(err, ErrUnsigned) {
		t.Errorf("a head is a checkpoint: %v", err)
	}
	crl, err := c.ca.SignCRL(1, nil, day, day)
	if err != nil {
		t.Fatal(err)
	}
	list, err := x509.ParseRevocationList(crl)
	if err != nil {
		t.Fatal(err)
	}
	for name, signature := range map[string][]byte{"list": list.Signature, "certificate": c.ca.Cert.Signature} {
		forged := h
		forged.Signature = signature
		if err := forged.Verify(h.Network, c.claims.CAs); !errors.Is(err, ErrUnsigned) {
			t.Errorf("the signature of a %s is one of a head: %v", name, err)
		}
	}
	// What is hashed for a list or a certificate is DER, a SEQUENCE.
	for _, prefix := range []string{headPrefix, checkpointPrefix} {
		if prefix[0] == 0x30 {
			t.Errorf("%q begins as DER does", prefix)
		}
	}
	if list.CheckSignatureFrom(c.ca.Cert) != nil || c.ca.Cert.CheckSignature(x509.ECDSAWithSHA256, list.RawTBSRevocationList, h.Signature) == nil {
		t.Error("the signature of a head is one of a list")
	}
	bare, err := c.ca.Key.Sign(rand.Reader, sum(h.body(nil)), crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	h.Signature = bare
	if err := h.Verify(h.Network, c.claims.CAs); !errors.Is(err, ErrUnsigned) {
		t.Errorf("without what says that it is a head: %v", err)
	}
}

func sum(b []byte) []byte { s := sha256.Sum256(b); return s[:] }

// A head can be kept somewhere else as one line, also when a successor signed it.
func TestHeadOutside(t *testing.T) {
	c := newChain(t, 3)
	next, err := c.ca.Successor("next", day)
	if err != nil {
		t.Fatal(err)
	}
	for _, ca := range []*cert.CA{c.ca, next} {
		h := c.signed(3, ca)
		again, err := ParseHead("  " + h.String() + "\n")
		if err != nil {
			t.Fatal(err)
		}
		if err := again.Verify(c.claims.Network, []*x509.Certificate{c.ca.Cert, next.Cert}); err != nil || again.String() != h.String() || !again.At.Equal(h.At) {
			t.Errorf("%v, %v", again, err)
		}
	}
	text := c.claims.Head.String()
	for _, s := range []string{"", "x", text[:130], text[:131], "02" + text[2:], text + text, text[:len(text)-1], "0" + text} {
		if h, err := ParseHead(s); err == nil {
			t.Errorf("%q is %+v", s, h)
		}
	}
	for i := 2; i < 130; i += 2 { // all that is signed
		b := []byte(text)
		b[i] = "01"[min(1, int('1'-min(b[i], '1')))]
		if string(b) == text {
			continue
		}
		h, err := ParseHead(string(b))
		if err == nil && h.Verify(c.claims.Network, c.claims.CAs) == nil {
			t.Errorf("with another digit %d it is signed still", i)
		}
	}
	var h Head
	b, _ := c.claims.Head.MarshalText()
	if err := h.UnmarshalText(b); err != nil || h.String() != text {
		t.Error(h, err)
	}
}
