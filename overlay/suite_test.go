package overlay_test

import (
	"cmp"
	"context"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"weft/coord/ops"
	"weft/overlay"
	"weft/overlay/internal/gcm"
	"weft/overlay/status"
)

// Tests of this package use the suite that the machine prefers, unless they say otherwise.
// What depends on the data plane runs once more with the other suite: paths, lanes, roaming,
// the life of tunnels, policy, and a day. It is not parallel: those tests are, and would have
// half the machine.
func TestOtherSuite(t *testing.T) {
	if os.Getenv("WEFT_TEST_SUITE") != "" {
		t.Skip("this is the other suite")
	}
	suite := overlay.SuiteWireGuard
	if !gcm.Fit() {
		suite = overlay.SuiteAES
	}
	const tests = "^Test(Paths?|PathCut|PathMoves|PathLAN|PathIPv6|PathIdle|PathReplay|LaneBeforeSTUN|OneWay|KeysThatDoNotMatch" +
		"|LostSession|ForgedZeroReset|IdleTunnelEnds|CertificateEnds|IntroductionOutlivesTunnel|AnswerAfterSilence" +
		"|BothDialAtOnce|Guest.*|HomeDies|DownUpLogout|PolicyChangeCutsLiveFlows|DeletedDeviceIsCutOff|CutStaysCut|Day)$"
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run="+tests, "-test.timeout=5m")
	cmd.Env = append(os.Environ(), "WEFT_TEST_SUITE="+suite)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%s: %v\n%s", suite, err, out)
	}
}

// suiteOf returns the suite of a node's tunnel with a peer.
func (n *node) suiteOf(peer string) string { return n.pathTo(peer).Suite }

// Each pair uses the best suite that both can: nodes with both, nodes that offer WireGuard
// only, as those before 2026-11-30, and nodes that demand AES. A pair changes its suite when
// one of them restarts with another, in the middle of a flow.
func TestSuites(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	nodes := map[string]*node{}
	for name, suite := range map[string]string{"both": overlay.SuiteAES, "plain": overlay.SuiteWireGuard, "strict": overlay.SuiteAES} {
		n := w.nodeOf(name, overlay.Config{Suite: suite})
		if name == "both" {
			n.stop()
			n.prepare = (*overlay.Node).OfferAES
			n.cfg.Suite = overlay.SuiteAuto
			n.start()
		}
		n.echo()
		nodes[name] = n
	}
	both, plain, strict := nodes["both"], nodes["plain"], nodes["strict"]
	for _, c := range []struct {
		from, to *node
		want     string
	}{
		{both, plain, "wireguard"}, {both, strict, "aes"},
	} {
		say(t, c.from.dial("tcp", c.to.cfg.Hostname+":7"), "hello")
		for _, way := range [][2]*node{{c.from, c.to}, {c.to, c.from}} {
			if got := way[0].suiteOf(way[1].cfg.Hostname); got != c.want {
				t.Errorf("%s with %s: %q, want %q", way[0].cfg.Hostname, way[1].cfg.Hostname, got, c.want)
			}
		}
		if p := c.from.pathTo(c.to.cfg.Hostname); p.KeyExchange != "X25519MLKEM768" || (p.KeysSince != nil) != (c.want == "aes") || p.KeysPackets != nil && *p.KeysPackets == 0 {
			t.Errorf("%+v", p)
		}
	}
	// Who demands AES gets no other tunnel, whichever side calls, and the caller is told why.
	for _, way := range [][2]*node{{strict, plain}, {plain, strict}} {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		_, err := way[0].Ping(ctx, way[1].cfg.Hostname)
		cancel()
		if status.KindOf(err) != status.KindDenied || !strings.Contains(err.Error(), "AES") {
			t.Errorf("%s to %s: %v", way[0].cfg.Hostname, way[1].cfg.Hostname, err)
		}
	}
	// The pair changes its suite, there and back, and the flow of the node that has not
	// restarted can reach the other again at once.
	for range 2 {
		for _, suite := range []string{overlay.SuiteAES, overlay.SuiteWireGuard} {
			plain.cfg.Suite = suite
			plain.restart()
			plain.echo()
			say(t, both.dial("tcp", "plain:7"), "hello")
			if got := both.suiteOf("plain"); got != cmp.Or(suite, "aes") {
				t.Errorf("after a restart: %q, want %q", got, suite)
			}
		}
	}
}

// A machine with AES tunnels has slept, or its clock was set: its tunnels get fresh keys,
// whether the kernel reports it or the next packet finds out. Flows continue, whichever side
// sends first, and quiet tunnels follow.
func TestFreshKeysAfterSleep(t *testing.T) {
	t.Parallel()
	for _, by := range []time.Duration{10 * time.Minute, -10 * time.Minute} {
		w := newWorld(t)
		w.suite = overlay.SuiteAES
		pi, attic := w.node("kitchen-pi", "device"), w.node("attic-pi", "device")
		pi.echo()
		attic.echo()
		laptop := w.node("laptop")
		clock := laptop.wrongClock()
		busy, idle := laptop.dial("tcp", "kitchen-pi:7"), laptop.dial("tcp", "attic-pi:7")
		say(t, busy, "before")
		say(t, idle, "before")
		introduced := func(peer string) time.Time { return *laptop.pathTo(peer).LastHandshake }
		since, others := introduced("kitchen-pi"), introduced("attic-pi")
		laptop.ClockSet()
		say(t, busy, "the clock was set, but hardly")
		if introduced("kitchen-pi") != since {
			t.Error("fresh keys without need")
		}
		for _, reported := range []bool{true, false} {
			clock.Add(int64(by))
			if reported {
				laptop.ClockSet()
			}
			say(t, busy, "after")
			eventually(t, 20*time.Second, "fresh keys", func() bool {
				return introduced("kitchen-pi").After(since) && introduced("attic-pi").After(others)
			})
			since, others = introduced("kitchen-pi"), introduced("attic-pi")
			say(t, busy, "under them")
			say(t, idle, "under them")
		}
		// The other side speaks first.
		l, err := pi.Listen("tcp4", ":9")
		if err != nil {
			t.Fatal(err)
		}
		c := laptop.dial("tcp", "kitchen-pi:9")
		back, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		clock.Add(int64(by))
		if _, err := back.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(make([]byte, 5)); err != nil {
			t.Fatal(err)
		}
		eventually(t, 20*time.Second, "fresh keys", func() bool { return introduced("kitchen-pi").After(since) })
		back.Close()
		c.Close()
	}
}

// Where policy demands AES, a device without it is refused, and its user told why; with AES
// it gets in. What takes no demand is open to it, and a demand comes into force, and ends,
// in the middle of a flow. The device that demands may reach the other as it likes.
func TestPolicyDemandsAES(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	vault := w.nodeOf("vault", overlay.Config{Suite: overlay.SuiteAES})
	vault.stop()
	vault.prepare, vault.cfg.Suite = (*overlay.Node).OfferAES, overlay.SuiteAuto
	vault.start()
	vault.echo()
	plain := w.nodeOf("plain", overlay.Config{Suite: overlay.SuiteWireGuard})
	plain.echo()
	aes := w.nodeOf("aes", overlay.Config{Suite: overlay.SuiteAES})
	set := func(text string) {
		t.Helper()
		if _, err := ops.Do(t.Context(), w.svc, ops.Root(), ops.SetPolicy{Text: text}); err != nil {
			t.Fatal(err)
		}
	}
	const open, demand = `{"rules": [{"from": ["*"], "to": ["*"], "ports": ["*"]}]}`, `{"rules": [{"from": ["*"], "to": ["*"], "ports": ["*"], "aes": true}]}`
	set(open)
	flow := plain.dial("tcp", "vault:7")
	say(t, flow, "before")
	say(t, aes.dial("tcp", "vault:7"), "before")
	set(demand)
	refused := func() bool {
		_, err := plain.Ping(t.Context(), "vault")
		return status.KindOf(err) == status.KindDenied && strings.Contains(err.Error(), "policy demands AES from plain to vault, and one of them cannot use it")
	}
	eventually(t, 20*time.Second, "a refusal that says why", refused)
	say(t, aes.dial("tcp", "vault:7"), "with AES")
	set(open)
	eventually(t, 20*time.Second, "the demand has ended", func() bool { _, err := plain.Ping(t.Context(), "vault"); return err == nil })
	set(demand)
	eventually(t, 20*time.Second, "a refusal that says why", refused)
	// The same device, with AES.
	plain.stop()
	plain.prepare, plain.cfg.Suite = (*overlay.Node).OfferAES, overlay.SuiteAuto
	plain.start()
	say(t, plain.dial("tcp", "vault:7"), "with AES")
}
