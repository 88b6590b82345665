package overlay

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sort"
	"sync/atomic"
	"time"

	"weft/coord/api"
	"weft/overlay/bind"
	"weft/overlay/cert"
	"weft/overlay/intro"
	"weft/overlay/relay"
)

// Where a peer is, when there is more than one relay: at the relay that the
// directory named; if that says no, or cannot be reached, where the server
// says now; else at ours, or at the others in the order in which the peer
// itself moves when it loses its home (relay.Order). So nodes find each other
// while the server is away.
const (
	maxAsked   = 8               // relays, for one introduction
	askServer  = 3 * time.Second // where it is
	movedAfter = 15 * time.Second
)

// errNotThere is wrapped when a relay could not be reached.
var errNotThere = errors.New("relay out of reach")

// reach introduces this node to a peer at the relay where that is found.
func (p *peers) reach(ctx context.Context, q *peer, d *dialing) (*intro.Session, error) {
	f := p.newFinder(ctx, q.id)
	defer f.stop()
	var said error
	for {
		rl, more, ok := f.next()
		if !ok {
			return nil, said
		}
		s, err := p.reachAt(ctx, q, d, rl, more)
		switch {
		case err == nil:
			return s, nil
		case ctx.Err() != nil:
			return nil, err
		case errors.Is(err, errGone), errors.Is(err, errNotThere), errors.Is(err, relay.ErrOffline),
			errors.Is(err, intro.ErrTimeout), errors.Is(err, context.DeadlineExceeded):
			f.ask()
			p.log.Debug("not reached", "peer", q.id, "relay", rl.Name, "err", err)
		default:
			return nil, err // of the peer itself
		}
		if said == nil || errors.Is(said, errNotThere) || errors.Is(said, errGone) && !errors.Is(err, errNotThere) {
			said = err
		}
	}
}

// reachAt introduces this node to a peer through one relay. With more relays
// to ask it takes no longer than one attempt.
func (p *peers) reachAt(ctx context.Context, q *peer, d *dialing, rl api.Relay, more bool) (*intro.Session, error) {
	w, err := p.guests.connect(ctx, rl)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNotThere, err)
	}
	if more {
		var stop context.CancelFunc
		ctx, stop = context.WithTimeout(ctx, intro.HandshakeTimeout)
		defer stop()
	}
	ctx, gone := context.WithCancelCause(ctx)
	defer gone(nil)
	defer p.guests.calling(q.id, w)()
	if err := p.inLoop(func() error { d.way, d.gone = w, gone; return nil }); err != nil {
		return nil, err
	}
	return p.intro.Dial(ctx, q.id, func(s *intro.Session) {
		p.inLoop(func() error { return p.established(q, d, s) })
	})
}

// finder names the relays where a peer may be, the likeliest first.
type finder struct {
	p      *peers
	id     cert.NodeID
	ctx    context.Context
	stop   context.CancelFunc
	relays []api.Relay
	queue  []api.Relay
	tried  []string    // Relay.IDs
	answer chan string // Relay.ID, from the server; nil before ask
}

func (p *peers) newFinder(ctx context.Context, id cert.NodeID) *finder {
	f := &finder{p: p, id: id}
	f.ctx, f.stop = context.WithCancel(ctx)
	if s := p.n.snap.Load(); s != nil {
		f.relays = s.config.Relays
	}
	home := p.r.home.relay()
	if len(f.relays) <= 1 {
		f.queue = []api.Relay{{}} // home, wherever that is
		return f
	}
	hint := ""
	if k := p.n.dir.get(id); k != nil {
		hint = k.relay
	}
	if hint == "" {
		f.ask()
	}
	order := relay.Order(f.relays, id)
	first := slices.DeleteFunc(slices.Clone(order), func(r api.Relay) bool { return r.ID != hint && r.ID != home.ID })
	sort.SliceStable(first, func(i, j int) bool { return first[i].ID == hint && first[j].ID != hint })
	rest := slices.DeleteFunc(order, func(r api.Relay) bool { return r.ID == hint || r.ID == home.ID })
	f.queue = append(first, rest...)
	// Those that were out of reach a moment ago come last.
	sort.SliceStable(f.queue, func(i, j int) bool {
		return !p.guests.shuns(f.queue[i].ID) && p.guests.shuns(f.queue[j].ID)
	})
	return f
}

// ask asks the server, once, where the peer is now.
func (f *finder) ask() {
	if f.answer != nil || len(f.relays) <= 1 {
		return
	}
	f.answer = make(chan string, 1)
	answer := f.answer
	f.p.wg.Go(func() {
		ctx, cancel := context.WithTimeout(f.ctx, askServer)
		defer cancel()
		answer <- f.p.n.whereIs(ctx, f.id)
	})
}

// next returns the relay to try, and whether there are more. What the server
// says goes first.
func (f *finder) next() (rl api.Relay, more, ok bool) {
	if f.answer != nil {
		var id string
		if len(f.queue) == 0 {
			id = <-f.answer
			f.answer <- "" // known by now
		} else {
			select {
			case id = <-f.answer:
				f.answer <- ""
			default:
			}
		}
		if i := slices.IndexFunc(f.relays, func(r api.Relay) bool { return r.ID == id }); i >= 0 && !slices.Contains(f.tried, id) {
			at := f.relays[i]
			f.queue = slices.DeleteFunc(f.queue, func(r api.Relay) bool { return r.ID == id })
			f.queue = slices.Insert(f.queue, 0, at)
		}
	}
	if len(f.queue) == 0 || len(f.tried) >= maxAsked {
		return rl, false, false
	}
	rl, f.queue = f.queue[0], f.queue[1:]
	f.tried = append(f.tried, rl.ID)
	return rl, len(f.queue) > 0, true
}

// whereIs asks the server for the home of a peer, "" when it does not know.
func (n *Node) whereIs(ctx context.Context, id cert.NodeID) string {
	p, err := n.client().Lookup(ctx, "id", id.String())
	var e *api.Error
	switch {
	case errors.As(err, &e) && e.Status == http.StatusNotFound:
		return ""
	case err != nil:
		n.log.Debug("ask where a peer is", "peer", id, "err", err)
		return ""
	}
	k, err := knownOf(*p, n.verifyListed)
	if err != nil || k.node.ID != id {
		return ""
	}
	n.dir.learn(k)
	if !p.Online {
		return ""
	}
	return p.Relay
}

// setWay decides which relay connection carries what goes to a peer. It is the
// only place that does.
func (p *peers) setWay(q *peer, w way) {
	if w != nil && !p.guests.route(q.id, w) {
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
	q.endpoint.SetSender(w.sender())
}

// introduced sends what goes to a peer over the connection on which it was
// introduced: it is connected to that relay.
func (p *peers) introduced(q *peer, s *intro.Session) {
	p.setWay(q, p.guests.wayOf(q.id, s.Number()))
	if s.Initiator && q.way != nil {
		p.n.dir.setRelay(q.id, q.way.relay().ID)
	}
}

// guestLost is called when a guest connection has ended.
func (p *peers) guestLost(c *guest) {
	p.do(func() {
		for _, q := range p.table {
			if q.dial != nil && q.dial.way == way(c) {
				q.dial.gone(errNotThere)
			}
			if q.way != way(c) {
				continue
			}
			if p.guests.isHome(c) {
				p.setWay(q, p.r.home)
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
			if q.installed() && q.way == way(p.r.home) && p.sentLately(q) {
				p.call(q, nil)
			}
		}
	})
}

// sentLately reports whether somebody may still be waiting for an answer to
// what was sent.
func (p *peers) sentLately(q *peer) bool {
	st, ok := p.device.Stats(q.id)
	return ok && time.Since(latest(st.LastTx, st.LastRx)) < movedAfter
}

// alone reports whether the network has but one relay: who is not there is
// offline.
func (p *peers) alone() bool {
	s := p.n.snap.Load()
	return s == nil || len(s.config.Relays) <= 1
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
	at atomic.Int64 // of the last time, unix nanoseconds
}

var _ bind.Sender = (*lostWay)(nil)

// SendPackets implements bind.Sender.
func (l *lostWay) SendPackets(to cert.NodeID, _ [][]byte) error {
	now, last := time.Now().UnixNano(), l.at.Load()
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
