package overlay

import (
	"testing"
	"time"
)

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
