package netstack

import (
	"net/netip"
	"strings"
	"testing"
)

// A program that hangs does not block its peer's other ports. The refusal message names
// the bound and the peer and port with the most connections.
func TestQuotaPerPort(t *testing.T) {
	q := newQuota(120, perPort)
	peer, other := netip.MustParseAddr("100.64.0.1"), netip.MustParseAddr("100.64.0.2")
	n := 0
	for q.acquire(peer, 1883) {
		n++
	}
	if n != 10 {
		t.Errorf("one port got %d slots of 40", n)
	}
	if text := q.describe(); !strings.HasPrefix(text, "10 from 100.64.0.1 to port 1883 (now most are from 100.64.0.1 to port 1883: 10") {
		t.Error(text)
	}
	if q.describe() != "" {
		t.Error("the same refusal is described twice")
	}
	if !q.acquire(peer, 80) || !q.acquire(other, 1883) {
		t.Error("another port or peer was refused")
	}
	for range n {
		q.release(peer, 1883)
	}
	q.release(peer, 80)
	q.release(other, 1883)
	if q.total != 0 || len(q.by) != 0 || len(q.byPort) != 0 {
		t.Errorf("left: %d, %v, %v", q.total, q.by, q.byPort)
	}
}
