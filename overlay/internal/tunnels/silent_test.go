package tunnels

import (
	"testing"

	"weft/overlay/internal/homes"
)

// A relay that says again and again that a peer is silent makes the node wait once,
// not once more with each word.
func TestSilentIsAwaitedOnce(t *testing.T) {
	var q peer
	first, second := &dialing{}, &dialing{}
	way := homes.Way(&homes.Guest{})
	for i := range 1000 {
		if got := q.await(silence{first, way}); got != (i == 0) {
			t.Fatalf("word %d: waits %v", i, got)
		}
	}
	if !q.await(silence{second, way}) {
		t.Error("the next introduction does not wait")
	}
}
