package overlay_test

import (
	"crypto/x509"
	"testing"
	"time"
	"weft/coord/ops"

	"weft/overlay/api"
	"weft/overlay/cert"
	"weft/overlay/relay"
)

// A rename, a new device and a removal come with the nudge: nodes that fetch the
// directory send no request.
func TestChangesComeWithTheNudge(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	laptop := w.node("laptop")
	pi := w.node("kitchen-pi", "device")
	pi.stop()
	known := func(name string) bool {
		for _, p := range laptop.Status().Peers {
			if p.Name == name {
				return true
			}
		}
		return false
	}
	eventually(t, 20*time.Second, "the laptop knows the device", func() bool { return known("kitchen-pi") })
	time.Sleep(1100 * time.Millisecond) // changes come at most once a second
	before := w.requests.Load()
	id := mustFind(t, w, "kitchen-pi")
	if _, err := ops.Do(t.Context(), w.svc, ops.Root(), ops.RenameDevice{ID: id, Name: "hall"}); err != nil {
		t.Fatal(err)
	}
	eventually(t, 20*time.Second, "the laptop knows the new name", func() bool { return known("hall") })
	if n := w.requests.Load() - before; n != 0 {
		t.Errorf("%d requests for a new name that was pushed", n)
	}
	time.Sleep(1100 * time.Millisecond)
	if _, err := ops.Do(t.Context(), w.svc, ops.Root(), ops.DeleteDevice{ID: id}); err != nil {
		t.Fatal(err)
	}
	eventually(t, 20*time.Second, "the device is gone", func() bool { return !known("hall") })
	if n := w.requests.Load() - before; n != 0 {
		t.Errorf("%d requests for what was pushed", n)
	}
	// A change that does not fit the node's version is ignored, and a fetch makes up for
	// it.
	if _, err := ops.Do(t.Context(), w.svc, ops.Root(), ops.RenameDevice{ID: mustFind(t, w, "laptop"), Name: "desk"}); err != nil {
		t.Fatal(err)
	}
	eventually(t, 20*time.Second, "the laptop knows its own name", func() bool { return laptop.Status().Self.Name == "desk" })
}

// Changes of the directory are taken from the coordination server only, not from a relay
// that runs alone.
func TestChangesOfAForeignRelay(t *testing.T) {
	t.Parallel()
	w := newWorldOf(t, setup{evil: true})
	laptop := w.node("laptop")
	leaf, err := w.auth.Leaf(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	key, err := cert.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	alone, err := w.auth.Server.SignServer(&key.PublicKey, cert.RoleRelay, time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		der  []byte
		want bool
	}{{leaf.Certificate[0], true}, {alone, false}} {
		crt, err := x509.ParseCertificate(c.der)
		if err != nil {
			t.Fatal(err)
		}
		if got := laptop.IsServer([]*x509.Certificate{crt}); got != c.want {
			t.Errorf("%v: believed %v, want %v", crt.URIs, got, c.want)
		}
	}
	if laptop.IsServer(nil) {
		t.Error("no certificate is believed")
	}
	// The evil relay has the server's certificate, so its changes are taken, but not if
	// they do not fit, nor devices without a certificate of the network's CA.
	held := w.svc.Versions(laptop.id())
	next := api.Version{Epoch: held.Directory.Epoch, N: held.Directory.N + 1}
	for i, ch := range []api.Changes{
		{Since: bogus(1).Directory, Directory: api.Directory{Version: held.Directory, Removed: []string{laptop.id().String()}}},
		{Since: held.Directory, Directory: api.Directory{Version: next, Full: true}},
		{Since: next, Directory: api.Directory{Version: next}},
		{Since: held.Directory, Directory: api.Directory{Version: next, Peers: []api.Peer{{Certificate: leaf.Certificate[0]}, {}}}},
	} {
		nudge := relay.Nudge{Versions: held, Changes: &ch}
		nudge.Versions.Directory = ch.Version
		w.evil.say(laptop.id(), relay.TypeNudge, nudge)
		if n := len(laptop.Status().Peers); n != 0 {
			t.Errorf("case %d: %d peers", i, n)
		}
	}
	pi := w.node("kitchen-pi", "device")
	pi.echo()
	say(t, laptop.dial("tcp", "kitchen-pi:7"), "still in step")
}

func mustFind(t *testing.T, w *world, name string) cert.NodeID {
	t.Helper()
	n, err := w.svc.FindDevice(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return n.ID
}
