package store

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"testing"
	"time"
)

// What is stored of a webhook is what comes back, and how far it is is stored only as
// long as nobody has changed it.
func TestWebhooks(t *testing.T) {
	s, _ := fresh(t, Options{})
	write := func(f func(*Tx) error) error { t.Helper(); return s.Write(t.Context(), f) }
	read := func() (w Webhook) {
		t.Helper()
		if err := s.Read(t.Context(), func(r *Reader) (err error) { w, err = r.Webhook(network, "w1"); return err }); err != nil {
			t.Fatal(err)
		}
		return w
	}
	w := Webhook{
		ID: "w1", URL: "https://hook.example/a?b=c,d", Note: "mine", Events: []string{"device.*", "presence.offline"}, Tags: []string{"camera"},
		Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32"), netip.MustParsePrefix("fd00::/16")}, Enabled: true, Created: day, Revision: 7, Salt: bytes.Repeat([]byte{1}, 16),
	}
	w.Audit, w.Presence, w.Recent = 40, 3, []Delivered{}
	if err := write(func(tx *Tx) error { return tx.CreateWebhook(network, w) }); err != nil {
		t.Fatal(err)
	}
	if got := read(); !reflect.DeepEqual(got, w) {
		t.Errorf("%+v\nwant %+v", got, w)
	}
	at := day.Add(time.Hour)
	w.Attempts, w.Failing, w.Next, w.Paused, w.Delivered, w.Last, w.LastError, w.Missed, w.MissedAt = 3, &day, &at, &at, 9, &at, "it answered 500", 5, &day
	w.Recent = []Delivered{{Event: "a1-x", Op: "device.join", At: at, TookMS: 3, Status: 500, Error: "it answered 500"}}
	if err := write(func(tx *Tx) error { return tx.SetWebhookState(network, w) }); err != nil {
		t.Fatal(err)
	}
	if got := read(); !reflect.DeepEqual(got, w) {
		t.Errorf("%+v\nwant %+v", got, w)
	}
	old := w
	w.Revision, w.URL, w.Enabled, w.OldSalt, w.OldUntil, w.Salt = 8, "https://other.example/", false, w.Salt, &at, bytes.Repeat([]byte{2}, 16)
	if err := write(func(tx *Tx) error { return tx.EditWebhook(network, w) }); err != nil {
		t.Fatal(err)
	}
	old.Audit = 1
	if err := write(func(tx *Tx) error { return tx.SetWebhookState(network, old) }); !errors.Is(err, ErrNotFound) {
		t.Errorf("how far it was before the change: %v", err)
	}
	if got := read(); !reflect.DeepEqual(got, w) {
		t.Errorf("%+v\nwant %+v", got, w)
	}
	if err := write(func(tx *Tx) error { return tx.DeleteWebhook(network, "w1") }); err != nil {
		t.Fatal(err)
	}
	for _, f := range []func(*Tx) error{
		func(tx *Tx) error { return tx.DeleteWebhook(network, "w1") },
		func(tx *Tx) error { return tx.EditWebhook(network, w) },
		func(tx *Tx) error { _, err := tx.Webhook(network, "w1"); return err },
	} {
		if err := write(f); !errors.Is(err, ErrNotFound) {
			t.Errorf("%v", err)
		}
	}
}

// Presence events are as many as are kept, and who was behind is told how many are gone;
// what was told of a device goes with it.
func TestPresenceEvents(t *testing.T) {
	s, _ := fresh(t, Options{})
	err := s.Write(t.Context(), func(tx *Tx) error {
		if err := addNode(tx, 1); err != nil {
			return err
		}
		events := make([]PresenceEvent, presenceKeep+25)
		for i := range events {
			events[i] = PresenceEvent{ID: fmt.Sprint("p", i), At: day, Node: idOf(1), Name: "n", Tags: []string{"camera"}, Online: i%2 == 0}
		}
		return tx.AddPresence(network, events)
	})
	if err != nil {
		t.Fatal(err)
	}
	err = s.Read(t.Context(), func(r *Reader) error {
		list, gone, err := r.PresenceEvents(network, 5, 1<<20)
		if err != nil || len(list) != presenceKeep || gone != 20 || list[0].N != 26 || list[0].ID != "p25" || list[0].Node != idOf(1) || !list[0].At.Equal(day) || len(list[0].Tags) != 1 {
			t.Errorf("%d events, %d gone, the first %+v, %v", len(list), gone, list[0], err)
		}
		last, err := r.LastPresence(network)
		if err != nil || last != presenceKeep+25 {
			t.Errorf("last %d, %v", last, err)
		}
		online, err := r.IsToldOnline(network, idOf(1))
		if !online {
			t.Error("the last event says that it is online")
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	err = s.Write(t.Context(), func(tx *Tx) error {
		if err := tx.SetPresenceKnown(network); err != nil {
			return err
		}
		if err := tx.exec(`DELETE FROM nodes WHERE network_id=$1`, network[:]); err != nil {
			return err
		}
		if told, err := tx.ToldOnline(network); err != nil || len(told) != 0 {
			t.Errorf("%v of a device that is not there any more, %v", told, err)
		}
		if err := tx.ForgetPresence(network); err != nil {
			return err
		}
		known, err := tx.PresenceKnown(network)
		if list, _, _ := tx.PresenceEvents(network, 0, 10); known || len(list) != 0 {
			t.Errorf("known %v, %d events", known, len(list))
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}
