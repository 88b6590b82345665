package lookup

import (
	"testing"

	"weft/overlay/api"
	"weft/overlay/status"
)

// The snapshot stays the same until something changes, and then has another serial.
func TestNames(t *testing.T) {
	w := newWorld(t, func(c *api.Config) { c.Lookup = false })
	connected := true
	n := w.r.NewNames(func() bool { return connected })
	var last *status.Names
	next := func(what string, complete bool, peers int) {
		t.Helper()
		now := n.Snapshot()
		if last != nil && now.Serial <= last.Serial {
			t.Errorf("%s: serial %d after %d", what, now.Serial, last.Serial)
		}
		if now.Complete != complete || len(now.Peers) != peers {
			t.Errorf("%s: complete %v, want %v, %d peers, want %d", what, now.Complete, complete, len(now.Peers), peers)
		}
		if n.Snapshot() != now {
			t.Errorf("%s: another snapshot, and nothing has changed", what)
		}
		last = now
	}
	next("without a directory", false, 1)
	p, _ := w.device("kitchen-pi", 2)
	w.cfg.Directory.Update(&api.Directory{Version: api.Version{Epoch: 1, N: 1}, Full: true, Peers: []api.Peer{*p}}, w.net.VerifyListed)
	next("with all devices", true, 2)
	w.cfg.Health.Set(status.CodeServerOffline, "away")
	next("without the server", false, 2)
	w.cfg.Health.Clear(status.CodeServerOffline)
	next("with it again", true, 2)
	connected = false
	next("without a relay", false, 2)
	connected = true
	next("connected again", true, 2)
	w.cfg.Health.Set(status.CodeIPv4Blocked, "blocked")
	if next("with a firewall", true, 2); !last.NoIPv4 {
		t.Error("names lead to IPv4 addresses")
	}
	w.cfg.Held.Leave()
	if next("in no network", false, 0); last.Ready {
		t.Error("names are known in no network")
	}
}
