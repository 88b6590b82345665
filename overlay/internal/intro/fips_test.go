package intro

import (
	"crypto/tls"
	"testing"
	"testing/synctest"

	"weft/overlay/fips"
)

// Nodes in FIPS mode offer and take SecP256r1MLKEM768 alone. With nodes that are not, who
// offer X25519MLKEM768 first, they introduce themselves in both directions: as callee they
// ask for the other key share, which costs a round trip.
func TestFIPSModeOnOneSide(t *testing.T) {
	if fips.Enabled() {
		t.Skip("both sides are in FIPS mode")
	}
	for _, c := range []struct {
		name           string
		caller, callee bool // in FIPS mode
		want           string
		trips          int // of 4 x oneWay
	}{
		{"neither", false, false, "X25519MLKEM768", 0},
		{"caller", true, false, "SecP256r1MLKEM768", 0},
		{"callee", false, true, "SecP256r1MLKEM768", 1},
		{"both", true, true, "SecP256r1MLKEM768", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newNetwork(t)
				a, b := w.pair()
				w.wire.latency = oneWay
				strict := func(_ *Session, c *tls.Config) { c.CurvePreferences = []tls.CurveID{tls.SecP256r1MLKEM768} }
				if c.caller {
					a.Switch.alter = strict
				}
				if c.callee {
					b.Switch.alter = strict
				}
				s := introduce(t, a, b)
				if s.KeyExchange != c.want {
					t.Errorf("%s, want %s", s.KeyExchange, c.want)
				}
				if n, want := len(w.wire.frames()), 4+2*c.trips; n != want {
					t.Errorf("%d frames, want %d", n, want)
				}
			})
		})
	}
}
