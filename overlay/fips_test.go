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

// A node that enforces FIPS mode and has no AES is a member in all else. It says why no
// packets reach anybody, and so does who calls it, at once and for programs too.
func TestNodeWithoutDataPlane(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	pi := w.node("kitchen-pi", "device")
	pi.echo()
	strict := &node{w: w, cfg: overlay.Config{Suite: overlay.SuiteWireGuard}, prepare: (*overlay.Node).EnforceFIPS}
	w.add(strict, "strict")
	lap := w.node("laptop")

	checkRefused(t, strict.dialFails("kitchen-pi:7", 2*time.Second), fips.Refused, fips.RefusedHint)
	_, err := strict.Ping(t.Context(), "kitchen-pi")
	checkRefused(t, err, fips.Refused, fips.RefusedHint)
	wantKind(t, lap.dialFails("strict:7", 5*time.Second), status.KindDenied)
	_, err = lap.Ping(t.Context(), "strict")
	checkRefused(t, err, "no tunnel with strict: "+fips.Refused, "weft before 2026-11-30 has no AES")
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
	checkComesAndGoes(t, strict)
}

// A node that enforces FIPS mode has AES and nothing else: tunnels with all that have AES,
// and a refusal that says why for the others, whichever side calls.
func TestNodeWithAESAlone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	strict := &node{w: w, prepare: (*overlay.Node).EnforceFIPS}
	w.add(strict, "strict")
	both := &node{w: w, prepare: (*overlay.Node).OfferAES}
	w.add(both, "both")
	plain := w.nodeOf("plain", overlay.Config{Suite: overlay.SuiteWireGuard})
	for _, n := range []*node{strict, both, plain} {
		n.echo()
	}
	flow := both.dial("tcp", "strict:7")
	say(t, flow, "hello")
	say(t, strict.dial("tcp", "both:7"), "hello")
	if got := strict.suiteOf("both"); got != overlay.SuiteAES {
		t.Errorf("suite %q", got)
	}
	for range 2 { // the second time after a restart
		_, err := strict.Ping(t.Context(), "plain")
		checkRefused(t, err, "no tunnel with plain: the calling device demands AES, the called one cannot use it", "weft before 2026-11-30 has no AES")
		_, err = plain.Ping(t.Context(), "strict")
		checkRefused(t, err, "no tunnel with strict: the called device demands AES, the calling one cannot use it", "weft before 2026-11-30 has no AES")
		wantKind(t, plain.dialFails("strict:7", 5*time.Second), status.KindDenied)
		if st := strict.Status(); st.State != status.StateRunning || len(st.Health) != 0 {
			t.Errorf("status: %+v", st)
		}
		strict.restart()
		strict.echo()
		say(t, both.dial("tcp", "strict:7"), "after a restart")
		say(t, strict.dial("tcp", "both:7"), "after a restart")
	}
	checkComesAndGoes(t, strict)
}

// checkComesAndGoes brings a node down and up, and logs it out.
func checkComesAndGoes(t *testing.T, n *node) {
	t.Helper()
	if err := n.Down(t.Context()); err != nil {
		t.Error(err)
	}
	if err := n.Up(t.Context(), ""); err != nil {
		t.Error(err)
	}
	n.wait("")
	if err := n.Logout(t.Context()); err != nil {
		t.Error(err)
	}
}

// Where FIPS mode is enforced, server, relay and nodes, direct and in a WebSocket, use
// nothing that it forbids, and packets flow.
func TestEnforcedFIPSMode(t *testing.T) {
	if !fipstest.Only(t) {
		return
	}
	w := newWorld(t)
	pi := w.node("kitchen-pi", "device")
	pi.echo()
	lap := w.node("laptop")
	for range 2 { // the second time after a restart
		say(t, lap.dial("tcp", "kitchen-pi:7"), "hello")
		if p := lap.pathTo("kitchen-pi"); p.Suite != overlay.SuiteAES || p.KeyExchange != "SecP256r1MLKEM768" || p.KeysPackets == nil || *p.KeysPackets == 0 {
			t.Errorf("%+v", p)
		}
		if st := lap.Status(); st.State != status.StateRunning || st.FIPS.Mode != fips.Only || st.FIPS.Module == "" || len(st.Health) != 0 {
			t.Errorf("status: %+v", st)
		}
		lap.restart()
	}
}

func checkRefused(t *testing.T, err error, message, hint string) {
	t.Helper()
	wantKind(t, err, status.KindDenied)
	if err == nil || !strings.Contains(err.Error(), message) || !strings.HasSuffix(err.Error(), "; "+hint) {
		t.Errorf("%v", err)
	}
}
