package path

import (
	"testing"
	"testing/synctest"
	"time"

	"weft/overlay/internal/overlaytest"
)

// scene is two nodes that send to each other.
type scene struct {
	t    *testing.T
	w    *world
	in   *overlaytest.Internet
	a, b *node
}

// play runs f with two nodes behind usual home routers, 20 ms apart, once they have a
// direct path. build may make other nodes.
func play(t *testing.T, build func(*scene), f func(*scene)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		in := overlaytest.New(1)
		defer in.Close()
		s := &scene{t: t, in: in, w: newWorld(t, in)}
		if build == nil {
			build = func(s *scene) { s.homes() }
		}
		build(s)
		s.a.sending, s.b.sending = true, true
		stop := start(s.w, s.a, s.b)
		defer stop()
		s.eventually("a direct path", 5*time.Second, func() bool {
			return s.a.path().Kind == Direct && s.b.path().Kind == Direct
		})
		time.Sleep(3 * time.Second)
		f(s)
	})
}

func (s *scene) homes() (na, nb *overlaytest.NAT) {
	na = s.in.NAT("a-nat", overlaytest.PortRestricted, "198.51.100.1")
	nb = s.in.NAT("b-nat", overlaytest.PortRestricted, "203.0.113.1")
	s.a = s.w.node("a", 0, na.Host("a", "192.168.1.2"), "192.168.1.0/24")
	s.b = s.w.node("b", 1, nb.Host("b", "192.168.7.2"), "192.168.7.0/24")
	s.a.host.Link.SetLatency(5 * time.Millisecond)
	s.b.host.Link.SetLatency(5 * time.Millisecond)
	return na, nb
}

func (s *scene) eventually(what string, within time.Duration, ok func() bool) time.Duration {
	s.t.Helper()
	begun := time.Now()
	for !ok() {
		if time.Since(begun) > within {
			s.t.Fatalf("%s: not within %v; a: %+v, b: %+v", what, within, s.a.path(), s.b.path())
		}
		time.Sleep(10 * time.Millisecond)
	}
	return time.Since(begun)
}

// outage returns how long n receives nothing from now on.
func (n *node) outage(within time.Duration) time.Duration {
	worst := time.Duration(0)
	for end := time.Now().Add(within); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		worst = max(worst, time.Since(n.stats().lastGot))
	}
	return worst
}

// TestCut: the direct path dies in the middle of a flow; traffic moves to the relay and
// later back.
func TestCut(t *testing.T) {
	play(t, nil, func(s *scene) {
		s.in.Partition(s.a.host, s.b.host)
		if worst := s.a.outage(3 * time.Second); worst > 750*time.Millisecond {
			t.Errorf("nothing arrived for %v", worst)
		} else {
			t.Logf("outage %v", worst)
		}
		if p := s.a.path(); p.Kind == Direct {
			t.Errorf("still %v", p.Kind)
		}
		s.in.Heal(s.a.host, s.b.host)
		took := s.eventually("direct again", 40*time.Second, func() bool { return s.a.path().Kind == Direct && s.b.path().Kind == Direct })
		t.Logf("direct again after %v", took)
	})
}

// TestLongCut: the direct path is found soon after an obstacle is gone, however long that
// was there.
func TestLongCut(t *testing.T) {
	play(t, nil, func(s *scene) {
		s.in.Partition(s.a.host, s.b.host)
		time.Sleep(10 * time.Minute)
		s.in.Heal(s.a.host, s.b.host)
		took := s.eventually("direct again", flowRound+time.Second, func() bool { return s.a.path().Kind == Direct && s.b.path().Kind == Direct })
		t.Logf("direct again after %v", took)
	})
}

// TestOneWayCut: data still arrive from the other side.
func TestOneWayCut(t *testing.T) {
	play(t, nil, func(s *scene) {
		// b's socket is deaf for a: as if a's datagrams were dropped.
		s.b.do(func() { s.b.deaf = true })
		if worst := s.b.outage(6 * time.Second); worst > 3*time.Second {
			t.Errorf("nothing arrived for %v", worst)
		} else {
			t.Logf("outage %v", worst)
		}
		if p := s.a.path(); p.Kind == Direct {
			t.Errorf("still %v", p.Kind)
		}
	})
}

// TestLoss: a lossy path stays in use.
func TestLoss(t *testing.T) {
	play(t, nil, func(s *scene) {
		s.a.host.Link.SetLoss(0.1)
		left := 0
		for range 600 {
			time.Sleep(100 * time.Millisecond)
			if s.a.path().Kind != Direct {
				left++
			}
		}
		if left > 30 {
			t.Errorf("not direct for %d of 600 moments", left)
		}
	})
}

// TestQuiet: after a pause longer than a NAT's memory the first packet goes through the
// relay, and the direct path is found again soon.
func TestQuiet(t *testing.T) {
	play(t, nil, func(s *scene) {
		for _, n := range []*node{s.a, s.b} {
			n.do(func() { n.sending = false })
		}
		time.Sleep(20 * time.Second)
		if p := s.a.path(); p.Kind != Direct {
			t.Errorf("after 20 s: %v", p.Kind)
		}
		time.Sleep(15 * time.Second)
		relayed := s.b.stats().got[Relay]
		sent := s.a.stats().sent
		s.a.do(s.a.sendData)
		time.Sleep(200 * time.Millisecond)
		if s.a.stats().sent != sent+1 || s.b.stats().got[Relay] != relayed+1 {
			t.Errorf("the first packet did not take the relay: %v", s.b.stats().got)
		}
		s.a.do(func() { s.a.sending = true })
		t.Logf("direct again after %v more", s.eventually("direct again", 2*time.Second, func() bool { return s.a.path().Kind == Direct }))
		if worst := s.b.outage(2 * time.Second); worst > 500*time.Millisecond {
			t.Errorf("nothing arrived for %v", worst)
		}
	})
}

// TestShortPause: a pause within a NAT's memory loses nothing.
func TestShortPause(t *testing.T) {
	play(t, nil, func(s *scene) {
		for range 5 {
			s.a.do(func() { s.a.sending = false })
			s.b.do(func() { s.b.sending = false })
			time.Sleep(15 * time.Second)
			direct := s.b.stats().got[Direct]
			s.a.do(s.a.sendData)
			time.Sleep(100 * time.Millisecond)
			if s.b.stats().got[Direct] != direct+1 {
				t.Errorf("the packet after a pause did not go straight: %v", s.b.stats().got)
			}
			time.Sleep(2 * time.Second)
		}
	})
}

// TestReboot: a NAT forgets everything.
func TestReboot(t *testing.T) {
	var na *overlaytest.NAT
	play(t, func(s *scene) { na, _ = s.homes() }, func(s *scene) {
		na.Reboot()
		if worst := s.b.outage(3 * time.Second); worst > 1500*time.Millisecond {
			t.Errorf("nothing arrived for %v", worst)
		}
		s.eventually("direct again", 10*time.Second, func() bool { return s.a.path().Kind == Direct && s.b.path().Kind == Direct })
	})
}

// TestMove: a host moves to another network.
func TestMove(t *testing.T) {
	play(t, nil, func(s *scene) {
		cafe := s.in.NAT("cafe", overlaytest.PortRestricted, "198.51.100.99")
		s.a.do(func() {
			s.a.host.Move(cafe.Net, "10.9.8.7")
			s.a.agent.NetworkChanged(time.Now())
		})
		if worst := s.b.outage(2 * time.Second); worst > 200*time.Millisecond {
			t.Errorf("nothing arrived for %v", worst)
		}
		s.eventually("direct again", 2*time.Second, func() bool { return s.a.path().Kind == Direct && s.b.path().Kind == Direct })
	})
}

// TestLAN: nodes in one LAN use their LAN addresses, even if the router supports
// hairpins.
func TestLAN(t *testing.T) {
	for _, hairpin := range []bool{true, false} {
		play(t, func(s *scene) {
			home := s.in.NAT("home", overlaytest.PortRestricted, "198.51.100.1")
			home.SetHairpin(hairpin)
			s.a = s.w.node("a", 0, home.Host("a", "192.168.1.2"), "192.168.1.0/24")
			s.b = s.w.node("b", 1, home.Host("b", "192.168.1.3"), "192.168.1.0/24")
			// The detour looks faster.
			s.a.host.Link.SetLatency(2 * time.Millisecond)
		}, func(s *scene) {
			for _, n := range []*node{s.a, s.b} {
				if p := n.path(); !p.LAN || p.Path.Addr.Addr() != n.peer.host.Addrs()[0] {
					t.Errorf("hairpin %v: %v takes %+v", hairpin, n.name, p)
				}
			}
		})
	}
}

// TestIPv6: IPv6 through stateful firewalls where IPv4 cannot work.
func TestIPv6(t *testing.T) {
	play(t, func(s *scene) {
		na := s.in.NAT("a-nat", overlaytest.Symmetric, "198.51.100.1")
		nb := s.in.NAT("b-nat", overlaytest.Symmetric, "203.0.113.1")
		s.a = s.w.node("a", 0, na.Host("a", "192.168.1.2", "2001:db8:a::2"))
		s.b = s.w.node("b", 1, nb.Host("b", "192.168.7.2", "2001:db8:b::2"))
	}, func(s *scene) {
		if p := s.a.path(); !p.Path.Addr.Addr().Is6() || p.Limit != 1452 {
			t.Errorf("takes %+v", p)
		}
	})
}

// TestSizes: the largest size that passes is found, and found again when it changes.
func TestSizes(t *testing.T) {
	for _, c := range []struct{ link, own, want int }{
		{1500, 0, 1472}, {1500, 9000, 1472}, {0, 9000, 8972}, {1492, 0, 1464}, {1450, 0, 1372}, {1280, 0, 1232}, {1420, 1420, 1392},
	} {
		play(t, func(s *scene) {
			s.homes()
			s.a.mtu, s.b.mtu = c.own, c.own
			s.b.host.Link.SetMTU(c.link)
		}, func(s *scene) {
			if p := s.a.path(); p.Limit != c.want {
				t.Errorf("link of %d: limit %d, want %d", c.link, p.Limit, c.want)
			}
			s.b.host.Link.SetMTU(1280)
			t.Logf("safe after %v", s.eventually("the safe size", 5*time.Second, func() bool {
				return s.a.path().Limit == 1232 && s.a.path().Kind == Direct
			}))
			s.b.host.Link.SetMTU(c.link)
			s.eventually("the full size again", 15*time.Second, func() bool { return s.a.path().Limit == c.want })
		})
	}
}

// TestTooSmall: a path that does not carry the safe size, from the beginning or from some
// time on, is left within seconds, and used again once it does.
func TestTooSmall(t *testing.T) {
	for _, from := range []int{576, 1500} {
		play(t, func(s *scene) {
			s.homes()
			s.b.host.Link.SetMTU(from)
		}, func(s *scene) {
			s.b.host.Link.SetMTU(576)
			took := s.eventually("the relay", 5*time.Second, func() bool { return s.a.path().Kind == Relay })
			t.Logf("link of %d, then of 576: relay after %v", from, took)
			time.Sleep(time.Minute)
			if p := s.a.path(); p.Kind != Relay || p.Reason != reasonSmall {
				t.Errorf("a minute later %+v", p)
			}
			s.b.host.Link.SetMTU(1500)
			s.eventually("a direct path", 15*time.Second, func() bool { return s.a.path().Kind == Direct })
		})
	}
}

// TestLaneLost: when relayed UDP fails, traffic moves to the relay connection, and later
// back.
func TestLaneLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := overlaytest.New(1)
		defer in.Close()
		s := &scene{t: t, in: in, w: newWorld(t, in)}
		na := in.NAT("a-nat", overlaytest.Symmetric, "198.51.100.1")
		nb := in.NAT("b-nat", overlaytest.Symmetric, "203.0.113.1")
		s.a = s.w.node("a", 0, na.Host("a", "192.168.1.2"))
		s.b = s.w.node("b", 1, nb.Host("b", "192.168.7.2"))
		s.a.sending, s.b.sending = true, true
		defer start(s.w, s.a, s.b)()
		took := s.eventually("a lane", 2*time.Second, func() bool { return s.a.path().Kind == RelayedUDP && s.b.path().Kind == RelayedUDP })
		t.Logf("lane after %v", took)
		if p := s.a.path(); p.Reason != reasonBothHard {
			t.Errorf("reason: %s", p.Reason)
		}
		s.a.do(func() { s.a.agent.SetLane(time.Now(), false) })
		if p := s.a.path(); p.Kind != Relay {
			t.Errorf("without lane: %v", p.Kind)
		}
		s.a.do(func() { s.a.agent.SetLane(time.Now(), true) })
		s.eventually("a lane again", time.Second, func() bool { return s.a.path().Kind == RelayedUDP })
		// The relay's UDP port stops answering.
		s.w.relay.Close()
		if worst := s.b.outage(3 * time.Second); worst > 750*time.Millisecond {
			t.Errorf("nothing arrived for %v", worst)
		}
		if p := s.a.path(); p.Kind != Relay {
			t.Errorf("with a dead lane: %v", p.Kind)
		}
	})
}

// TestHardBack: a path through a hard NAT that was lost for a moment is found again with
// the same socket, without another search.
func TestHardBack(t *testing.T) {
	play(t, func(s *scene) {
		na := s.in.NAT("a-nat", overlaytest.Symmetric, "198.51.100.1")
		nb := s.in.NAT("b-nat", overlaytest.PortRestricted, "203.0.113.1")
		s.a = s.w.node("a", 0, na.Host("a", "192.168.1.2"))
		s.b = s.w.node("b", 1, nb.Host("b", "192.168.7.2"))
	}, func(s *scene) {
		was := s.a.path().Path
		if was.Socket == 0 {
			t.Fatalf("by the node's own socket: %+v", was)
		}
		s.in.Partition(s.a.host, s.b.host)
		s.eventually("another path", 5*time.Second, func() bool { return s.a.path().Kind != Direct && s.b.path().Kind != Direct })
		s.in.Heal(s.a.host, s.b.host)
		s.eventually("the path again", 30*time.Second, func() bool { return s.a.path().Path == was })
		for _, n := range []*node{s.a, s.b} {
			n.do(func() { n.sending = false })
		}
		time.Sleep(2 * QuietAfter)
		s.a.do(func() {
			if len(s.a.extra) != 0 {
				t.Errorf("%d sockets are open while nothing is sent", len(s.a.extra))
			}
		})
	})
}

// TestBusy: a machine that is stopped for a second, and then finds all answers waiting,
// does not lose its path.
func TestBusy(t *testing.T) {
	play(t, nil, func(s *scene) {
		for range 5 {
			s.a.do(func() { time.Sleep(time.Second) })
			time.Sleep(100 * time.Millisecond)
			if p := s.a.path(); p.Kind != Direct {
				t.Fatalf("lost: %+v", p)
			}
		}
	})
}
