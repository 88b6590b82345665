package overlay_test

import (
	"strings"
	"testing"
	"time"

	"weft/overlay"
	"weft/overlay/fips"
	"weft/overlay/fips/fipstest"
	"weft/overlay/status"
)

// A node that may not use WireGuard is a member in all else. It says why no packets reach
// anybody, and so does who calls it, at once and for programs too.
func TestNodeWithoutDataPlane(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	pi := w.node("kitchen-pi", "device")
	pi.echo()
	strict := &node{w: w, cfg: overlay.Config{}, prepare: (*overlay.Node).RefuseTunnels}
	w.add(strict, "strict")
	lap := w.node("laptop")

	checkRefused(t, strict.dialFails("kitchen-pi:7", 2*time.Second), fips.Refused, fips.RefusedHint)
	_, err := strict.Ping(t.Context(), "kitchen-pi")
	checkRefused(t, err, fips.Refused, fips.RefusedHint)
	wantKind(t, lap.dialFails("strict:7", 5*time.Second), status.KindDenied)
	_, err = lap.Ping(t.Context(), "strict")
	checkRefused(t, err, "strict does not accept this device: suite: "+fips.Refused, "on that device: weft doctor --fips")
	say(t, lap.dial("tcp", "kitchen-pi:7"), "to others as always")

	st := strict.Status()
	if st.State != status.StateRunning || len(st.Health) != 1 || st.Health[0].Code != status.CodeFIPS || !strings.Contains(st.Health[0].Message, fips.Refused) {
		t.Errorf("status: %+v", st)
	}
	for _, p := range append(st.Peers, lap.Status().Peers...) {
		if p.Name != "kitchen-pi" && p.KeyExchange != "" {
			t.Errorf("a tunnel with %s: %+v", p.Name, p)
		}
	}
	if err := strict.Down(t.Context()); err != nil {
		t.Error(err)
	}
	if err := strict.Up(t.Context(), ""); err != nil {
		t.Error(err)
	}
	strict.wait("")
	if err := strict.Logout(t.Context()); err != nil {
		t.Error(err)
	}
}

// The same where FIPS mode is enforced: server, relay and nodes, direct and in a
// WebSocket, use nothing that it forbids.
func TestEnforcedFIPSMode(t *testing.T) {
	if !fipstest.Only(t) {
		return
	}
	w := newWorld(t)
	w.node("kitchen-pi", "device")
	lap := w.node("laptop")
	checkRefused(t, lap.dialFails("kitchen-pi:7", 2*time.Second), fips.Refused, fips.RefusedHint)
	if st := lap.Status(); st.State != status.StateRunning || st.FIPS.Mode != fips.Only || st.FIPS.Module == "" {
		t.Errorf("status: %+v", st)
	}
	eventually(t, 10*time.Second, "the directory arrives", func() bool { return len(lap.Status().Peers) == 1 })
	lap.restart()
}

func checkRefused(t *testing.T, err error, message, hint string) {
	t.Helper()
	wantKind(t, err, status.KindDenied)
	if err == nil || !strings.Contains(err.Error(), message) || !strings.HasSuffix(err.Error(), "; "+hint) {
		t.Errorf("%v", err)
	}
}
