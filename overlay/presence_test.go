package overlay

import (
	"testing"
	"time"
)

func TestPresenceAt(t *testing.T) {
	now := time.Now()
	at := func(s float64) time.Time { return now.Add(-time.Duration(s * float64(time.Second))) }
	never := time.Time{}
	for _, c := range []struct {
		name       string
		online     bool
		told       time.Time
		tunnel     bool
		made, gone time.Time
		heard      time.Time
		want       presence
	}{
		{"nothing is known", false, never, false, never, never, never, presence{false, never}},
		{"as it was told", true, at(700), false, never, never, never, presence{true, at(700)}},
		{"told, then gone", true, at(700), true, at(600), at(3), at(400), presence{false, at(3)}},
		{"a tunnel since", false, at(700), true, at(600), never, never, presence{true, at(600)}},
		{"a tunnel that brought something", false, at(700), true, at(600), never, at(50), presence{true, at(50)}},
		{"gone, and yet heard later", true, at(700), true, at(600), at(80), at(50), presence{true, at(50)}},
		{"the server says since that it is off", false, at(1), true, at(600), never, at(50), presence{false, at(1)}},
		{"heard a second ago, whatever the server says", false, at(0), true, at(600), never, at(1), presence{true, at(1)}},
		{"heard a second ago, whatever the relay says", true, at(9), true, at(600), at(0.5), at(1), presence{true, at(1)}},
	} {
		k := &known{online: c.online, told: c.told}
		var v *peerView
		if c.tunnel {
			v = &peerView{made: c.made, gone: c.gone}
		}
		if got := presenceAt(now, k, v, c.heard); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
}

// Being told of a peer's presence moves the count of changes only where it changes,
// and brings no name back that leads nowhere any more.
func TestSightings(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	d := newDirectory(func() time.Time { return now })
	a := fakeNode(1, "a")
	d.learn(&known{node: a, online: true})
	count := d.changeCount()
	now = now.Add(time.Minute)
	d.setPresence(sighting{a.ID, true, now}, sighting{fakeNode(2, "b").ID, true, now})
	if k := d.peek(a.ID); d.changeCount() != count || !k.told.Equal(now) || !k.lastSeen.Equal(now) || d.peek(fakeNode(2, "b").ID) != nil {
		t.Errorf("online still: %+v, %d changes", k, d.changeCount()-count)
	}
	d.setMissing("a")
	count = d.changeCount()
	d.setPresence(sighting{id: a.ID})
	if k := d.peek(a.ID); k.online || !k.lastSeen.Equal(now) || d.changeCount() == count {
		t.Errorf("gone: %+v", k)
	}
	if k, _ := d.find("a"); k != nil {
		t.Errorf("a name that the server knows no more leads to %+v", k)
	}
}

func TestBefore(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Hour: "a moment ago", 0: "a moment ago", 1999 * time.Millisecond: "a moment ago",
		2 * time.Second: "2s ago", 15 * time.Second: "15s ago", 90 * time.Minute: "1h30m0s ago", 72 * time.Hour: "3 days ago",
	} {
		if got := before(d); got != want {
			t.Errorf("%v: %q, want %q", d, got, want)
		}
	}
}

// A server that does not know whether a peer is online changes nothing of what was
// said last.
func TestPresenceUnsaid(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	d := newDirectory(func() time.Time { return now })
	a := fakeNode(1, "a")
	d.learn(&known{node: a, unsaid: true})
	if k := d.peek(a.ID); k.online || !k.told.IsZero() {
		t.Errorf("nobody has said anything: %+v", k)
	}
	d.learn(&known{node: a, online: true})
	was := now
	now = now.Add(time.Minute)
	d.learn(&known{node: a, unsaid: true})
	if k := d.peek(a.ID); !k.online || !k.told.Equal(was) {
		t.Errorf("it was said to be online: %+v", k)
	}
}
