package lookup

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"weft/overlay/api"
	"weft/overlay/cert"
	"weft/overlay/internal/directory"
)

// nobody reports that no peer has a tunnel.
func nobody(cert.NodeID) bool { return false }

// present makes devices that are listed in the directory, all offline.
func (w *world) present(names ...string) (ids []cert.NodeID) {
	for i, name := range names {
		_, node := w.device(name, byte(10+i))
		w.cfg.Directory.Learn(&directory.Entry{Node: node, Listed: true, NoPresence: true})
		ids = append(ids, node.ID)
	}
	return ids
}

// The most important nodes come first, and no more than one request can hold.
func TestWhom(t *testing.T) {
	var known []*directory.Entry
	node := func(i int, name string, with directory.Entry) cert.NodeID {
		k := with
		k.Node = &cert.Node{ID: cert.NodeID{byte(i), byte(i >> 8), 1}, Attributes: cert.Attributes{Name: name}}
		known = append(known, &k)
		return k.Node.ID
	}
	self := node(1, "self", directory.Entry{Listed: true, Online: true})
	b := node(2, "b", directory.Entry{Listed: true})
	a := node(3, "a", directory.Entry{Listed: true})
	z := node(4, "z", directory.Entry{Listed: true, Online: true})
	y := node(5, "y", directory.Entry{})
	x := node(6, "x", directory.Entry{})
	node(7, "w", directory.Entry{})
	node(8, "v", directory.Entry{Online: true})
	s := node(9, "s", directory.Entry{CallerOnly: true})
	tunnel := func(id cert.NodeID) bool { return id == y || id == s }
	if got, want := whom(known, self, x, tunnel), []cert.NodeID{x, y, z, a, b}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	for i := range 2 * api.MaxPresence {
		node(100+i, fmt.Sprintf("many-%05d", i), directory.Entry{Listed: true})
	}
	got := whom(known, self, x, tunnel)
	if len(got) != api.MaxPresence || got[0] != x || got[1] != y || got[2] != z {
		t.Errorf("%d are asked for, first %v", len(got), got[:3])
	}
}

// Ask asks the server now and then and records the answers; where the server does not
// know, the last report stays.
func TestPresence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		ids := w.present("a", "b", "c")
		seen := time.Now().Add(-time.Hour)
		w.presence = func(asked []string) ([]api.Presence, error) {
			if len(asked) != 3 {
				t.Errorf("asked for %q", asked)
			}
			return []api.Presence{
				{ID: ids[0].String(), Online: true},
				{ID: ids[1].String(), LastSeen: &seen},
				{ID: ids[2].String(), Unknown: true},
				{ID: cert.NodeID{9}.String(), Online: true}, // it was not asked for
			}, nil
		}
		p := w.r.NewPresence(w, nobody)
		p.Ask(t.Context(), cert.NodeID{})
		told := func(i int) time.Time { return w.cfg.Directory.Peek(ids[i]).PresenceAt }
		if k := w.cfg.Directory.Peek(ids[0]); !k.Online || told(0).IsZero() {
			t.Errorf("who is online: %+v", k)
		}
		if k := w.cfg.Directory.Peek(ids[1]); k.Online || told(1).IsZero() || !k.LastSeen.Equal(seen) {
			t.Errorf("who is not: %+v", k)
		}
		if !told(2).IsZero() {
			t.Error("what the server does not know was noted")
		}
		for range 5 {
			p.Ask(t.Context(), cert.NodeID{})
		}
		time.Sleep(presenceSpacing - 1)
		p.Ask(t.Context(), cert.NodeID{})
		if asked := w.questions(); !slices.Equal(asked, []string{"presence"}) {
			t.Errorf("within %v: %q", presenceSpacing, asked)
		}
		time.Sleep(time.Nanosecond)
		p.Ask(t.Context(), cert.NodeID{})
		if asked := w.questions(); len(asked) != 1 {
			t.Errorf("after that: %q", asked)
		}
	})
}

// At a server that does not support the request, the first few are looked up one by one.
func TestPresenceAtAnEarlierServer(t *testing.T) {
	w := newWorld(t)
	ids := w.present("a", "b", "c", "d", "e", "f")
	w.presence = func([]string) ([]api.Presence, error) { return nil, errGone }
	w.r.NewPresence(w, nobody).Ask(t.Context(), ids[5])
	want := []string{"presence"}
	for _, i := range []int{5, 0, 1, 2} {
		want = append(want, "id "+ids[i].String())
	}
	if asked := w.questions(); !slices.Equal(asked, want) {
		t.Errorf("asked %q, want %q", asked, want)
	}
	for i, id := range ids {
		if k, is := w.cfg.Directory.Peek(id), i == 5 || i < 3; k.Online != is {
			t.Errorf("%s: online %v", k.Node.Name, k.Online)
		}
	}
	// If it fails in between, the answers until then count.
	w = newWorld(t)
	ids = w.present("a", "b")
	w.presence = func([]string) ([]api.Presence, error) { return nil, errGone }
	w.lookup = func(kind, key string) (*api.Peer, error) {
		if len(w.asked) > 2 {
			return nil, errAway
		}
		return w.find(kind, key)
	}
	w.r.NewPresence(w, nobody).Ask(t.Context(), cert.NodeID{})
	if a, b := w.cfg.Directory.Peek(ids[0]), w.cfg.Directory.Peek(ids[1]); !a.Online || !b.PresenceAt.IsZero() {
		t.Errorf("%+v, %+v", a, b)
	}
}

// Nothing is asked without a network, without peers, or if policy allows this node to
// reach nobody.
func TestPresenceOfNobody(t *testing.T) {
	w := newWorld(t)
	w.r.NewPresence(w, nobody).Ask(t.Context(), cert.NodeID{})
	w.present("a")
	w.cfg.Held.Leave()
	w.r.NewPresence(w, nobody).Ask(t.Context(), cert.NodeID{})
	closed := newWorld(t, func(c *api.Config) { c.Directory = false })
	closed.present("a")
	closed.r.NewPresence(closed, nobody).Ask(t.Context(), cert.NodeID{})
	if asked := append(w.questions(), closed.questions()...); asked != nil {
		t.Errorf("asked %q", asked)
	}
}

// A call while another one asks waits for that answer.
func TestPresenceTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		ids := w.present("a")
		answer := make(chan struct{})
		w.presence = func([]string) ([]api.Presence, error) {
			<-answer
			return []api.Presence{{ID: ids[0].String(), Online: true}}, nil
		}
		p := w.r.NewPresence(w, nobody)
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				if p.Ask(t.Context(), cert.NodeID{}); !w.cfg.Directory.Peek(ids[0]).Online {
					t.Error("somebody did not wait for the answer")
				}
			})
		}
		synctest.Wait()
		close(answer)
		wg.Wait()
		if asked := w.questions(); len(asked) != 1 {
			t.Errorf("asked %q", asked)
		}
	})
}
