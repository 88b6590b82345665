package tunnels

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"weft/overlay/api"
	"weft/overlay/cert"
	"weft/overlay/internal/bind"
	"weft/overlay/internal/homes"
	"weft/overlay/internal/intro"
	"weft/overlay/internal/mono"
	"weft/overlay/internal/pause"
	"weft/overlay/relay"
	"weft/overlay/status"
)

// At which relay a peer is, homes.Finder says.
//
// Who is found nowhere is offline, unless nobody can know yet: the server or a
// relay started a moment ago, the peer is on its way from one relay to another, or
// this node has not fetched the list of relays that there is now. Then they are
// asked again and again, but not for as long as an introduction may take.
const (
	askServer   = 3 * time.Second // where it is
	movedAfter  = 15 * time.Second
	askAgain    = 200 * time.Millisecond // in the mean, for whom nobody knows yet; longer each time
	askAgainMax = time.Second
	lookFor     = 12 * time.Second       // them again, in all
	goneWait    = 700 * time.Millisecond // the server, when nothing else is to try
)

var (
	// errNotThere is wrapped when a relay could not be reached.
	errNotThere = errors.New("relay out of reach")
	// errUnsure says that a peer was found nowhere and may be somewhere all the same.
	errUnsure = errors.New("not known yet where it is")
)

// reach introduces this node to a peer at the relay where that is found.
func (t *Table) reach(ctx context.Context, q *peer, d *dialing) (*intro.Session, error) {
	asking, stop := context.WithCancel(ctx)
	defer stop()
	f := t.newFinder(asking, d.id)
	var said error
	unsure, begun := false, time.Now()
	for wait := askAgain; ; {
		rl, more, ok := f.Next()
		if !ok {
			if unsure = f.Unsure(); !unsure {
				return nil, said
			}
			if time.Since(begun) > lookFor || !pause.Sleep(ctx, pause.Jitter(wait)) {
				return nil, errUnsure
			}
			wait = min(2*wait, askAgainMax)
			t.log.Debug("nobody knows yet where a peer is", "peer", d.id, "err", said)
			f.Again(d.id, askServer)
			continue
		}
		s, err := t.reachAt(ctx, q, d, rl, more)
		switch {
		case err == nil:
			return s, nil
		case ctx.Err() != nil && unsure:
			return nil, errUnsure
		case ctx.Err() != nil:
			return nil, err
		case errors.Is(err, errGone):
			f.Gone(rl, errors.Is(err, errSilent))
			t.log.Debug("not reached", "peer", d.id, "relay", rl.Name, "err", err)
		case errors.Is(err, errNotThere), errors.Is(err, relay.ErrOffline),
			errors.Is(err, intro.ErrTimeout), errors.Is(err, context.DeadlineExceeded):
			f.Ask()
			t.log.Debug("not reached", "peer", d.id, "relay", rl.Name, "err", err)
		default:
			return nil, err // of the peer itself
		}
		if said == nil || errors.Is(said, errNotThere) || errors.Is(said, errGone) && !errors.Is(err, errNotThere) {
			said = err
		}
	}
}

// reachAt introduces this node to a peer through one relay. With more relays
// to ask it takes no longer than one attempt, unless the peer answers.
func (t *Table) reachAt(ctx context.Context, q *peer, d *dialing, rl api.Relay, more bool) (*intro.Session, error) {
	if err := t.inLoop(func() error { d.tried, d.heard = time.Now(), false; return nil }); err != nil {
		return nil, err
	}
	w, err := t.guests.Connect(ctx, rl)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNotThere, err)
	}
	ctx, gone := context.WithCancelCause(ctx)
	defer gone(nil)
	enough := time.AfterFunc(intro.HandshakeTimeout, func() {
		if more {
			gone(context.DeadlineExceeded)
		}
	})
	defer enough.Stop()
	defer t.guests.Calling(d.id, w)()
	if err := t.inLoop(func() error { d.way, d.gone = w, gone; return nil }); err != nil {
		return nil, err
	}
	return t.intro.Dial(ctx, d.id, func(s *intro.Session) {
		enough.Stop() // it is there
		t.inLoop(func() error { return t.established(q, d, s) })
	})
}

// newFinder makes the finder of an introduction. Its questions end with ctx.
func (t *Table) newFinder(ctx context.Context, id cert.NodeID) *homes.Finder {
	return homes.NewFinder(id, homes.FinderConfig{
		Relays: t.cfg.Held.Relays,
		Home:   func() string { return t.home.Relay().ID },
		Hint: func() string {
			if k := t.cfg.Directory.Get(id); k != nil {
				return k.Relay
			}
			return ""
		},
		Shuns: t.guests.Shuns, Behind: t.cfg.Behind,
		Where: func(patience time.Duration) <-chan homes.Whereabouts {
			answer := make(chan homes.Whereabouts, 1)
			t.wg.Go(func() {
				ctx, cancel := context.WithTimeout(ctx, patience)
				defer cancel()
				answer <- t.cfg.Where(ctx, id)
			})
			return answer
		},
		Away: t.cfg.Health.Has(status.CodeServerOffline), AskTime: t.cfg.AskTime(askServer), GoneTime: goneWait,
	})
}

// setWay decides which relay connection carries what goes to a peer. It is the
// only place that does.
func (t *Table) setWay(q *peer, w homes.Way) {
	if w != nil && !t.guests.Route(q.id, w) {
		w = nil
	}
	q.way = w
	if q.endpoint == nil {
		return
	}
	if w == nil {
		q.endpoint.SetSender(&lostWay{t: t})
		return
	}
	q.endpoint.SetSender(w.Sender())
}

// introduced sends what goes to a peer over the connection on which it was
// introduced: it is connected to that relay.
func (t *Table) introduced(q *peer, s *intro.Session) {
	t.setWay(q, t.guests.Of(q.id, s.Number()))
	if s.Initiator && q.way != nil {
		t.cfg.Directory.SetRelay(q.id, q.way.Relay().ID)
	}
}

// GuestLost is called when a guest connection has ended.
func (t *Table) GuestLost(c *homes.Guest) {
	t.do(func() {
		for _, q := range t.table {
			if q.dial != nil && q.dial.way == homes.Way(c) {
				q.dial.gone(errNotThere)
			}
			if q.way != homes.Way(c) {
				continue
			}
			if t.guests.IsHome(c) {
				t.setWay(q, t.home)
				continue
			}
			t.setWay(q, nil)
			if s := q.session; s != nil {
				q.session, q.lost = nil, time.Now()
				s.Close()
			}
			if t.sentLately(q) {
				t.call(q, nil)
			}
		}
		t.publish()
	})
}

// HomeMoved is called when the home is another relay than before. Peers that
// were reached through the old one may be here too, having gone the same way;
// the others have to be found.
func (t *Table) HomeMoved() {
	t.hint(func() {
		for _, q := range t.table {
			if q.installed() && q.way == homes.Way(t.home) && t.sentLately(q) {
				t.call(q, nil)
			}
		}
	})
}

// sentLately reports whether somebody may still be waiting for an answer to
// what was sent.
func (t *Table) sentLately(q *peer) bool {
	st, ok := t.forwarder.Stats(q.id)
	return ok && time.Since(latest(st.LastTx, st.LastRx)) < movedAfter
}

// alone reports whether the network has but one relay: who is not there is
// offline.
func (t *Table) alone() bool {
	s, ok := t.cfg.Held.Get()
	return !ok || len(s.Config.Relays) <= 1
}

// findAgain introduces the node anew to a peer that is no longer where it was.
func (t *Table) findAgain(q *peer) {
	now := time.Now()
	if q.dial != nil || now.Before(latest(q.nextHint, q.nextRedial)) || !t.hasTraffic(q, now) {
		return
	}
	q.nextHint = now.Add(resetSpacing)
	t.call(q, nil)
}

// lostWay stands in for a guest connection that ended while its tunnel was
// quiet: the first packet makes the node look for the peer. Packets are lost
// until it is found.
type lostWay struct {
	t  *Table
	at atomic.Int64 // of the last time, by mono.Now
}

var _ bind.Sender = (*lostWay)(nil)

// SendPackets implements bind.Sender.
func (l *lostWay) SendPackets(to cert.NodeID, _ [][]byte) error {
	now, last := mono.Now(), l.at.Load()
	if now-last > int64(time.Second) && l.at.CompareAndSwap(last, now) {
		l.t.hint(func() {
			q := l.t.table[to]
			if q != nil && q.installed() && q.way == nil && q.dial == nil && !time.Now().Before(q.nextRedial) {
				l.t.call(q, nil)
			}
		})
	}
	return relay.ErrOffline
}
