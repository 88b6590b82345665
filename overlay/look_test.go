package overlay_test

import (
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"weft/overlay/api"
	"weft/overlay/status"
)

// looked returns the status of a peer from one call of Look.
func looked(t *testing.T, n *node, name string) status.PeerStatus {
	t.Helper()
	st, err := n.Look(t.Context(), "")
	if err != nil || st.Time == nil {
		t.Fatalf("%+v, %v", st, err)
	}
	for _, p := range st.Peers {
		if p.Name == name {
			return p
		}
	}
	t.Fatalf("%s is not among %+v", name, st.Peers)
	return status.PeerStatus{}
}

// knows waits until the coordination server has the report of whether a node is online.
func (w *world) knows(n *node, online bool) {
	w.t.Helper()
	w.knowsOf(n.Status().Self.ID, online)
}

func (w *world) knowsOf(id string, online bool) {
	w.t.Helper()
	eventually(w.t, 20*time.Second, "the server knows who is online", func() bool {
		is, ok := w.present.Load(id)
		return ok && is == online
	})
}

// counted counts the requests for a path. With gone it answers them like an earlier
// server that does not support them.
func counted(n *atomic.Int64, path string, gone bool) func(http.Handler) http.Handler {
	return func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == path {
				n.Add(1)
			}
			if gone && r.URL.Path == "/v1/presence" {
				w.WriteHeader(http.StatusNotFound)
				w.Write([]byte(`{"code":"` + api.CodeNotFound + `","message":"no such resource"}`))
				return
			}
			h.ServeHTTP(w, r)
		})
	}
}

// A laptop is not notified when a device without a tunnel goes offline. Look shows it
// nevertheless, in one call, with one request for all peers however often it is called.
// An earlier server is asked for a few peers.
func TestStatusTellsWhoIsGone(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		path string
		old  bool
		most int64
	}{
		{"asked for all", "/v1/presence", false, 1},
		{"a server of before", "/v1/lookup", true, 4},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var asked atomic.Int64
			w := newWorldOf(t, setup{api: counted(&asked, c.path, c.old)})
			pi, cam := w.node("kitchen-pi", "device"), w.node("cam", "device")
			id := pi.Status().Self.ID
			w.knows(cam, true)
			w.knows(pi, true)
			laptop := w.node("laptop")
			held := func(name string) (p status.PeerStatus) {
				for _, p = range laptop.Status().Peers {
					if p.Name == name {
						return p
					}
				}
				return status.PeerStatus{}
			}
			eventually(t, 20*time.Second, "the laptop holds both online", func() bool { return held("kitchen-pi").Online && held("cam").Online })
			pi.stop()
			w.knowsOf(id, false)
			if p := held("kitchen-pi"); !p.Online {
				t.Fatal("somebody told the laptop, so this shows nothing")
			}
			asked.Store(0)
			before := time.Now()
			p := looked(t, laptop, "kitchen-pi")
			if p.Online || p.Path != status.PathOffline || p.LastSeen == nil || p.PresenceAt == nil || p.PresenceAt.Before(before.Add(-time.Minute)) {
				t.Errorf("a device that is off: %+v", p)
			}
			if p := looked(t, laptop, "cam"); !p.Online || p.PresenceAt == nil || p.Path != status.PathIdle || p.PathReason == "" {
				t.Errorf("a device that is on: %+v", p)
			}
			for range 20 {
				looked(t, laptop, "cam")
			}
			most := c.most * int64(1+time.Since(before)/(5*time.Second))
			if n := asked.Load(); n < 1 || n > most {
				t.Errorf("the server was asked %d times for who looked 22 times, want at most %d", n, most)
			}
		})
	}
}

// Without the server, Look shows the last report with its age, and nothing if there was
// none.
func TestStatusWithoutServer(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.knows(w.node("kitchen-pi", "device"), true)
	laptop := w.node("laptop")
	eventually(t, 20*time.Second, "the laptop holds it online", func() bool {
		st := laptop.Status()
		return len(st.Peers) == 1 && st.Peers[0].Online
	})
	was := *laptop.Status().Peers[0].PresenceAt
	w.away.Store(true)
	p := looked(t, laptop, "kitchen-pi")
	if d := p.PresenceAt.Sub(was).Abs(); !p.Online || d > time.Minute {
		t.Errorf("%+v, was known at %v", p, was)
	}
	laptop.restart()
	p = looked(t, laptop, "kitchen-pi")
	if p.Online || p.PresenceAt != nil || p.Path != status.PathIdle || p.PathReason == "" {
		t.Errorf("nobody has said anything: %+v", p)
	}
}

// A peer that is asked for by name is shown even if it is in no directory.
func TestStatusOfOne(t *testing.T) {
	t.Parallel()
	var lookups atomic.Int64
	w := newWorldOf(t, setup{look: true, api: lookUp(&lookups)})
	w.knows(w.node("kitchen-pi", "device"), true)
	laptop := w.node("laptop")
	st, err := laptop.Look(t.Context(), "kitchen-pi")
	if err != nil || len(st.Peers) != 1 || st.Peers[0].Name != "kitchen-pi" || !st.Peers[0].Online || st.Peers[0].PresenceAt == nil {
		t.Errorf("%+v, %v", st.Peers, err)
	}
	if st := laptop.Status(); len(st.Peers) != 0 {
		t.Errorf("it stays: %+v", st.Peers)
	}
	_, err = laptop.Look(t.Context(), "nobody")
	wantKind(t, err, status.KindUnknown)
}

// A tunnel that ended with a bye leaves no "online" behind, and one that has just
// received something counts more than the server's report.
func TestStatusAfterTunnel(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	pi, laptop := w.node("kitchen-pi", "device"), w.node("laptop")
	eventually(t, 20*time.Second, "the laptop has it in its directory", func() bool { return len(laptop.Status().Peers) == 1 })
	pi.echo()
	say(t, laptop.dial("tcp", "kitchen-pi:7"), "hello")
	if p := looked(t, laptop, "kitchen-pi"); !p.Online || p.Path != status.PathRelay || p.PathNote == "" || p.LastSeen == nil {
		t.Errorf("with a tunnel: %+v", p)
	}
	pi.stop()
	eventually(t, 20*time.Second, "who looks is told", func() bool { return !looked(t, laptop, "kitchen-pi").Online })
}
