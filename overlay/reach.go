package overlay

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
	lookFor     = 12 * time.Second // them again, in all
)

var (
	// errNotThere is wrapped when a relay could not be reached.
	errNotThere = errors.New("relay out of reach")
	// errUnsure says that a peer was found nowhere and may be somewhere all the same.
	errUnsure = errors.New("not known yet where it is")
)

// reach introduces this node to a peer at the relay where that is found.
func (p *peers) reach(ctx context.Context, q *peer, d *dialing) (*intro.Session, error) {
	asking, stop := context.WithCancel(ctx)
	defer stop()
	f := p.newFinder(asking, d.id)
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
			p.log.Debug("nobody knows yet where a peer is", "peer", d.id, "err", said)
			f.Again(d.id, askServer)
			continue
		}
		s, err := p.reachAt(ctx, q, d, rl, more)
		switch {
		case err == nil:
			return s, nil
		case ctx.Err() != nil && unsure:
			return nil, errUnsure
		case ctx.Err() != nil:
			return nil, err
		case errors.Is(err, errGone):
			f.Gone(rl, errors.Is(err, errSilent))
			p.log.Debug("not reached", "peer", d.id, "relay", rl.Name, "err", err)
		case errors.Is(err, errNotThere), errors.Is(err, relay.ErrOffline),
			errors.Is(err, intro.ErrTimeout), errors.Is(err, context.DeadlineExceeded):
			f.Ask()
			p.log.Debug("not reached", "peer", d.id, "relay", rl.Name, "err", err)
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
func (p *peers) reachAt(ctx context.Context, q *peer, d *dialing, rl api.Relay, more bool) (*intro.Session, error) {
	if err := p.inLoop(func() error { d.tried, d.heard = time.Now(), false; return nil }); err != nil {
		return nil, err
	}
	w, err := p.guests.Connect(ctx, rl)
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
	defer p.guests.Calling(d.id, w)()
	if err := p.inLoop(func() error { d.way, d.gone = w, gone; return nil }); err != nil {
		return nil, err
	}
	return p.intro.Dial(ctx, d.id, func(s *intro.Session) {
		enough.Stop() // it is there
		p.inLoop(func() error { return p.established(q, d, s) })
	})
}

// newFinder makes the finder of an introduction. Its questions end with ctx.
func (p *peers) newFinder(ctx context.Context, id cert.NodeID) *homes.Finder {
	return homes.NewFinder(id, homes.FinderConfig{
		Relays: p.cfg.held.Relays,
		Home:   func() string { return p.home.Relay().ID },
		Hint: func() string {
			if k := p.cfg.directory.Get(id); k != nil {
				return k.Relay
			}
			return ""
		},
		Shuns: p.guests.Shuns, Behind: p.cfg.behind,
		Where: func(patience time.Duration) <-chan homes.Whereabouts {
			answer := make(chan homes.Whereabouts, 1)
			p.wg.Go(func() {
				ctx, cancel := context.WithTimeout(ctx, patience)
				defer cancel()
				answer <- p.cfg.where(ctx, id)
			})
			return answer
		},
		Away: p.cfg.health.Has(status.CodeServerOffline), AskTime: p.cfg.askTime(askServer), GoneTime: lastSeenWait,
	})
}

// setWay decides which relay connection carries what goes to a peer. It is the
// only place that does.
func (p *peers) setWay(q *peer, w homes.Way) {
	if w != nil && !p.guests.Route(q.id, w) {
		w = nil
	}
	q.way = w
	if q.endpoint == nil {
		return
	}
	if w == nil {
		q.endpoint.SetSender(&lostWay{p: p})
		return
	}
	q.endpoint.SetSender(w.Sender())
}

// introduced sends what goes to a peer over the connection on which it was
// introduced: it is connected to that relay.
func (p *peers) introduced(q *peer, s *intro.Session) {
	p.setWay(q, p.guests.Of(q.id, s.Number()))
	if s.Initiator && q.way != nil {
		p.cfg.directory.SetRelay(q.id, q.way.Relay().ID)
	}
}

// guestLost is called when a guest connection has ended.
func (p *peers) guestLost(c *homes.Guest) {
	p.do(func() {
		for _, q := range p.table {
			if q.dial != nil && q.dial.way == homes.Way(c) {
				q.dial.gone(errNotThere)
			}
			if q.way != homes.Way(c) {
				continue
			}
			if p.guests.IsHome(c) {
				p.setWay(q, p.home)
				continue
			}
			p.setWay(q, nil)
			if s := q.session; s != nil {
				q.session, q.lost = nil, time.Now()
				s.Close()
			}
			if p.sentLately(q) {
				p.call(q, nil)
			}
		}
		p.publish()
	})
}

// homeMoved is called when the home is another relay than before. Peers that
// were reached through the old one may be here too, having gone the same way;
// the others have to be found.
func (p *peers) homeMoved() {
	p.hint(func() {
		for _, q := range p.table {
			if q.installed() && q.way == homes.Way(p.home) && p.sentLately(q) {
				p.call(q, nil)
			}
		}
	})
}

// sentLately reports whether somebody may still be waiting for an answer to
// what was sent.
func (p *peers) sentLately(q *peer) bool {
	st, ok := p.forwarder.Stats(q.id)
	return ok && time.Since(latest(st.LastTx, st.LastRx)) < movedAfter
}

// alone reports whether the network has but one relay: who is not there is
// offline.
func (p *peers) alone() bool {
	s, ok := p.cfg.held.Get()
	return !ok || len(s.Config.Relays) <= 1
}

// findAgain introduces the node anew to a peer that is no longer where it was.
func (p *peers) findAgain(q *peer) {
	now := time.Now()
	if q.dial != nil || now.Before(latest(q.nextHint, q.nextRedial)) || !p.hasTraffic(q, now) {
		return
	}
	q.nextHint = now.Add(resetSpacing)
	p.call(q, nil)
}

// lostWay stands in for a guest connection that ended while its tunnel was
// quiet: the first packet makes the node look for the peer. Packets are lost
// until it is found.
type lostWay struct {
	p  *peers
	at atomic.Int64 // of the last time, by mono.Now
}

var _ bind.Sender = (*lostWay)(nil)

// SendPackets implements bind.Sender.
func (l *lostWay) SendPackets(to cert.NodeID, _ [][]byte) error {
	now, last := mono.Now(), l.at.Load()
	if now-last > int64(time.Second) && l.at.CompareAndSwap(last, now) {
		l.p.hint(func() {
			q := l.p.table[to]
			if q != nil && q.installed() && q.way == nil && q.dial == nil && !time.Now().Before(q.nextRedial) {
				l.p.call(q, nil)
			}
		})
	}
	return relay.ErrOffline
}

// viaOf returns the name of the relay through which a peer is reached.
func (p *peers) viaOf(id cert.NodeID) string { return (*p.view.Load())[id].via }
