package ops

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"weft/coord/store"
)

// What may keep a device offline follows from what is known of it.
func TestCausesOf(t *testing.T) {
	now := time.Unix(2_000_000_000, 0)
	ago := now.Add(-time.Hour)
	usual := absence{now: now, since: ago, expires: now.Add(time.Hour), software: "1.0", server: "1.0"}
	for name, c := range map[string]struct {
		change func(*absence)
		want   string
	}{
		"nothing is known":       {func(*absence) {}, "itself"},
		"never connected":        {func(f *absence) { f.since = time.Time{} }, "never"},
		"its relay is away":      {func(f *absence) { f.relay, f.relayHeard = "hall", ago }, "relay hall"},
		"its relay is there":     {func(f *absence) { f.relay, f.relayThere = "hall", true }, "itself"},
		"its site is away":       {func(f *absence) { f.gone = 3 }, "site 3"},
		"its site is there":      {func(f *absence) { f.gone, f.there = 3, 2 }, "alone 2"},
		"its certificate ended":  {func(f *absence) { f.expires = ago }, "itself certificate"},
		"its clock is wrong":     {func(f *absence) { f.reports = []store.Introduction{{}, {Doubts: "name time"}, {Doubts: "time"}} }, "itself clock"},
		"its times are unlikely": {func(f *absence) { f.reports = []store.Introduction{{Doubts: "name"}} }, "itself"},
		"it runs something else": {func(f *absence) { f.software = "0.9" }, "itself version 1.0"},
		"its version is unknown": {func(f *absence) { f.software = "" }, "itself"},
		"all of it": {func(f *absence) {
			f.since, f.expires, f.software, f.reports = time.Time{}, ago, "0.9", []store.Introduction{{Doubts: "time"}}
		}, "never certificate clock version 1.0"},
	} {
		f := usual
		c.change(&f)
		var got []string
		for _, o := range causesOf(f) {
			got = append(got, string(o.Kind))
			if o.Count > 0 {
				got = append(got, fmt.Sprint(o.Count))
			}
			if o.Name != "" {
				got = append(got, o.Name)
			}
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s: %v, want %s", name, got, c.want)
		}
	}
}

// The outlook of a device counts only those beside it that the asker may see.
func TestOutlook(t *testing.T) {
	s := openSite(t)
	bob := s.member("bob")
	mine, other := s.joined(CreateKey{UserID: bob.UserID}, "mine"), s.joined(CreateKey{UserID: bob.UserID}, "other")
	foreign := s.camera("foreign")
	home := netip.MustParseAddr("192.0.2.7")
	get := func(a Actor) Outlook {
		t.Helper()
		o, err := s.Outlook(t.Context(), a, mine.id)
		if err != nil {
			t.Fatal(err)
		}
		return o
	}
	s.clock.Add(time.Minute) // the server is not new any more
	if o := get(bob); len(o.Causes) == 0 || o.Causes[0].Kind != CauseNever || !o.Since.IsZero() {
		t.Errorf("before it ever came: %+v", o)
	}
	for i, d := range []*device{mine, other, foreign} {
		s.Presence(d.id, uint64(i+1), true, s.clock.Now(), home)
	}
	if o := get(bob); len(o.Causes) != 0 || !o.Here || !o.Since.Equal(s.clock.Now()) || o.Traffic != nil {
		t.Errorf("online: %+v", o)
	}
	s.clock.Add(time.Hour)
	for i, d := range []*device{mine, other, foreign} {
		s.Presence(d.id, uint64(i+1), false, s.clock.Now().Add(time.Duration(i)*time.Minute), home)
	}
	if o := get(bob); o.Causes[0] != (Cause{Kind: CauseSite, Count: 1}) {
		t.Errorf("for bob: %+v", o.Causes)
	}
	if o := get(Root()); o.Causes[0] != (Cause{Kind: CauseSite, Count: 2}) {
		t.Errorf("for the owner: %+v", o.Causes)
	}
	s.Presence(foreign.id, 9, true, s.clock.Now(), home)
	if o := get(Root()); o.Causes[0] != (Cause{Kind: CauseAlone, Count: 1}) {
		t.Errorf("with another there: %+v", o.Causes)
	}
	if _, err := s.Outlook(t.Context(), bob, foreign.id); !errors.Is(err, ErrNotFound) {
		t.Errorf("of another's device: %v", err)
	}
}

// However many measure the way to a device at once, it is pinged once, and who gives up
// does not spoil it for the others.
func TestMeasuredOnce(t *testing.T) {
	s := openSite(t)
	pi := s.camera("pi")
	s.Presence(pi.id, 1, true, s.clock.Now(), netip.Addr{})
	synctest.Test(t, func(t *testing.T) {
		answer := make(chan struct{})
		s.told.ping = func() (time.Duration, error) { <-answer; return 7 * time.Millisecond, nil }
		impatient, giveUp := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for i := range 5 {
			wg.Go(func() {
				ctx := t.Context()
				if i == 0 {
					ctx = impatient
				}
				rtt, err := s.measure(ctx, pi.id)
				if i == 0 && !errors.Is(err, context.Canceled) || i > 0 && (err != nil || rtt != 7*time.Millisecond) {
					t.Errorf("%d: %v, %v", i, rtt, err)
				}
			})
			synctest.Wait()
		}
		giveUp()
		synctest.Wait()
		close(answer)
		wg.Wait()
		if n := s.told.pings.Load(); n != 1 {
			t.Errorf("it was pinged %d times", n)
		}
	})
	s.told.ping = func() (time.Duration, error) { return 7 * time.Millisecond, nil }
	if c, err := s.TestConnection(t.Context(), Root(), pi.id); err != nil || c.Latency != 7*time.Millisecond || s.told.pings.Load() != 2 {
		t.Errorf("afterwards: %+v, %v", c, err)
	}
}
