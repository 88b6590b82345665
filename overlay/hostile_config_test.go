package overlay

import (
	"bytes"
	"os"
	"testing"

	"weft/overlay/api"
	"weft/overlay/internal/network"
	"weft/overlay/internal/state"
	"weft/overlay/release"
	"weft/overlay/status"
)

// The first release key is pinned. Another one causes a warning and changes nothing.
func TestReleaseKeyIsPinned(t *testing.T) {
	n, _, _ := listNode(t)
	first, other := bytes.Repeat([]byte{1}, 32), bytes.Repeat([]byte{2}, 32)
	for _, c := range []struct {
		key  []byte
		warn bool
	}{{nil, false}, {[]byte("short"), false}, {first, false}, {first, false}, {other, true}, {nil, true}, {first, false}} {
		n.held.Update(func(_ *network.Identity, s *network.Network) { s.Config = &api.Config{ReleaseKey: c.key} })
		n.keeper.Mark(state.ReleaseFile)
		if err := n.keeper.Flush(); err != nil {
			t.Fatal(err)
		}
		if n.health.Has(status.CodeReleaseKeyChanged) != c.warn {
			t.Errorf("key %x: %v", c.key, n.health.List())
		}
	}
	b, err := os.ReadFile(n.state.File(state.ReleaseFile))
	if key, kerr := release.ParseKey(b); err != nil || kerr != nil || !bytes.Equal(key, first) {
		t.Errorf("pinned %q, %v, %v", b, err, kerr)
	}
}
