package overlay_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"weft/coord/ops"
	"weft/overlay"
	"weft/overlay/status"
)

// A join is one request and one link to the relay: the answer has what the node would fetch
// next. The node can reach others at once, and has all of it on disk for its next start.
func TestJoinIsOneRequest(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.node("kitchen-pi", "device").echo()
	before, replaced := w.requests.Load(), w.relay.Stats().Replaced
	laptop := w.node("laptop")
	say(t, laptop.dial("tcp", "kitchen-pi:7"), "hello")
	if n := w.requests.Load() - before; n != 1 {
		t.Errorf("%d requests", n)
	}
	if n := w.relay.Stats().Replaced - replaced; n != 0 {
		t.Errorf("%d links to the relay were replaced", n)
	}
	for _, file := range []string{"node.json", "config.json", "crl.der", "directory.json", "names.json"} {
		eventually(t, 5*time.Second, file+" is on disk", func() bool {
			_, err := os.Stat(filepath.Join(laptop.cfg.StateDir, file))
			return err == nil
		})
	}
	w.away.Store(true) // the coordination server, not the relay
	laptop.restart()
	say(t, laptop.dial("tcp", "kitchen-pi:7"), "hello again")
}

// A node that cannot save its certificate has not joined, and leaves no connection open.
func TestJoinThatIsNotSaved(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	n := &node{w: w, cfg: overlay.Config{}}
	dir := filepath.Join(t.TempDir(), "laptop")
	// A directory in place of the file cannot be replaced by one.
	if err := os.MkdirAll(filepath.Join(dir, "config.json", "in-the-way"), 0o700); err != nil {
		t.Fatal(err)
	}
	n.cfg.StateDir, n.cfg.Hostname, n.cfg.UDP.Off = dir, "laptop", true
	n.begin()
	var failed *fs.PathError
	var link *os.LinkError
	err := n.Up(t.Context(), w.token(ops.CreateKey{}))
	if !errors.As(err, &failed) && !errors.As(err, &link) {
		t.Fatalf("joined: %v", err)
	}
	if st := n.Status(); st.State != status.StateUnjoined {
		t.Errorf("the state is %q", st.State)
	}
	eventually(t, 5*time.Second, "no link to the relay is left", func() bool { return w.relay.Stats().Clients == 0 })
}
