package standalone

import (
	"testing"

	"weft/coord/ops"
)

// A device whose tags changed stays connected, hears of the list at once, and may connect
// with its superseded certificate until it has fetched another one. When it is deleted,
// it is out, whichever certificate it shows.
func TestSupersededStays(t *testing.T) {
	s := startServer(t)
	r := start(t, options(t, s.token(ops.CreateKey{Relay: true})))
	pi := s.node("pi", "camera")
	pi.connect(r)
	until(t, "the device is connected", pi.welcomed)
	tags := []string{"door"}
	if _, err := ops.Do(t.Context(), s.Service, ops.Root(), ops.AssignDevice{ID: pi.id, Tags: &tags}); err != nil {
		t.Fatal(err)
	}
	until(t, "the list at the device", func() bool {
		pi.mu.Lock()
		defer pi.mu.Unlock()
		return pi.crls > 0
	})
	select {
	case err := <-pi.done:
		t.Fatalf("its connection ended: %v", err)
	default:
	}
	pi.connect(r)
	until(t, "it connects anew", pi.welcomed)
	if _, err := ops.Do(t.Context(), s.Service, ops.Root(), ops.DeleteDevice{ID: pi.id}); err != nil {
		t.Fatal(err)
	}
	<-pi.done
	pi.refusedBy(r)
}
