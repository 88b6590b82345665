package store

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"
)

// The last texts are kept, with the one in force, whatever their size.
func TestPolicies(t *testing.T) {
	s, _ := fresh(t, Options{})
	at := time.Unix(1e9, 0).UTC()
	for i := 1; i <= KeptPolicies+3; i++ {
		err := s.Write(t.Context(), func(tx *Tx) error {
			n, err := tx.AddPolicy(network, PolicyRevision{Number: 1e6, At: &at, UserID: "u", User: "alice", Via: "cli"}, fmt.Sprintf("é%d", i))
			if n != i {
				t.Errorf("number %d, want %d", n, i)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	err := s.Read(t.Context(), func(r *Reader) error {
		list, err := r.Policies(network)
		if err != nil || len(list) != KeptPolicies {
			t.Fatalf("%d policies, %v", len(list), err)
		}
		for i, p := range list {
			if p.Number != KeptPolicies+3-i || p.User != "alice" || p.UserID != "u" || p.Via != "cli" || !p.At.Equal(at) || p.Bytes != len(fmt.Sprintf("é%d", p.Number)) {
				t.Errorf("%d: %+v", i, p)
			}
		}
		if p, text, err := r.PolicyText(network, 4); err != nil || text != "é4" || p.Number != 4 || p.Bytes != 3 {
			t.Errorf("%+v %q %v", p, text, err)
		}
		for _, gone := range []int{-1, 0, 3, KeptPolicies + 4} {
			if _, _, err := r.PolicyText(network, gone); !errors.Is(err, ErrNotFound) {
				t.Errorf("%d: %v", gone, err)
			}
		}
		n, err := r.PolicyNumber(network)
		if n != KeptPolicies+3 {
			t.Errorf("%d is in force", n)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// A policy that was in force before there was a history is the first in it.
func TestPolicyBeforeHistory(t *testing.T) {
	for text, want := range map[string]int{"": 0, `{"rules":[]}`: 1} {
		path := recorded(t, 8)
		script(t, path, fmt.Sprintf(`UPDATE networks SET policy='%s'`, text))
		err := open(t, path, Options{}).Read(t.Context(), func(r *Reader) error {
			n, err := r.Network()
			if err != nil {
				return err
			}
			list, err := r.Policies(n.ID)
			if err != nil || len(list) != want {
				t.Fatalf("%+v, %v", list, err)
			}
			if want == 0 {
				return nil
			}
			p, kept, err := r.PolicyText(n.ID, 1)
			if kept != text || p.At != nil || p.User != "" {
				t.Errorf("%+v, %q", p, kept)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestClasses(t *testing.T) {
	s, _ := fresh(t, Options{})
	err := s.Write(t.Context(), func(tx *Tx) error {
		for i, tags := range []string{"b", "", "a", "b", "b"} {
			a, err := tx.AllocIPv4(network, netip.MustParsePrefix("100.64.0.0/10"), day)
			if err != nil {
				return err
			}
			n := Node{ID: idOf(i), SPKI: []byte{byte(i)}, Name: fmt.Sprint("n", i), UserID: "u", Tags: SplitTags(tags), IPv4: a, Created: day, Expires: day, Certificate: []byte{1}, N: uint64(i)}
			n.Class = Class(n.UserID, tags)
			if err := tx.InsertNode(network, n); err != nil {
				return err
			}
		}
		classes, err := tx.Classes(network)
		if err != nil || fmt.Sprint(classes) != "[u/ u/a u/b]" {
			t.Errorf("%q, %v", classes, err)
		}
		names, err := tx.ClassNames(network, "u/b", 2)
		if err != nil || fmt.Sprint(names) != "[n0 n3]" {
			t.Errorf("%q, %v", names, err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
