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

	"weft/overlay/api"
	"weft/overlay/cert"
	"weft/overlay/internal/bind"
	"weft/overlay/internal/directory"
	"weft/overlay/internal/intro"
	"weft/overlay/internal/mono"
	"weft/overlay/internal/pause"
	"weft/overlay/relay"
	"weft/overlay/status"
)

// Where a peer is, when there is more than one relay: at the relay that the
// directory named; if that says no, or cannot be reached, where the server
// says now; else at ours, or at the others in the order in which the peer
// itself moves when it loses its home (relay.Order). So nodes find each other
// while the server is away.
//
// Who is found nowhere is offline, unless nobody can know yet: the server or a
// relay started a moment ago, the peer is on its way from one relay to another, or
// this node has not fetched the list of relays that there is now. Then they are
// asked again and again, but not for as long as an introduction may take.
const (
	maxAsked     = 8               // relays, for one introduction
	maxQuestions = 2               // to the server, for the same
	askServer    = 3 * time.Second // where it is
	movedAfter   = 15 * time.Second
	askAgain     = 200 * time.Millisecond // in the mean, for whom nobody knows yet; longer each time
	askAgainMax  = time.Second
	lookFor      = 12 * time.Second // them again, in all
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
		rl, more, ok := f.next()
		if !ok {
			if unsure = f.unsure(); !unsure {
				return nil, said
			}
			if time.Since(begun) > lookFor || !pause.Sleep(ctx, pause.Jitter(wait)) {
				return nil, errUnsure
			}
			wait = min(2*wait, askAgainMax)
			p.log.Debug("nobody knows yet where a peer is", "peer", d.id, "err", said)
			p.fill(f, d.id)
			f.askFor(askServer)
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
			f.gone(rl, errors.Is(err, errSilent))
			p.log.Debug("not reached", "peer", d.id, "relay", rl.Name, "err", err)
		case errors.Is(err, errNotThere), errors.Is(err, relay.ErrOffline),
			errors.Is(err, intro.ErrTimeout), errors.Is(err, context.DeadlineExceeded):
			f.ask()
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
	w, err := p.guests.connect(ctx, rl)
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
	defer p.guests.calling(d.id, w)()
	if err := p.inLoop(func() error { d.way, d.gone = w, gone; return nil }); err != nil {
		return nil, err
	}
	return p.intro.Dial(ctx, d.id, func(s *intro.Session) {
		enough.Stop() // it is there
		p.inLoop(func() error { return p.established(q, d, s) })
	})
}

// finder names the relays where a peer may be, the likeliest first.
type finder struct {
	relays []api.Relay
	// behind reports whether there may be a newer list of relays than this node's.
	behind func() bool
	// where asks the server where the peer is.
	where func(patience time.Duration) <-chan whereabouts
	away  bool // the server did not answer when it was last asked for something
	// askTime is how long the server has to answer.
	askTime time.Duration

	queue  []api.Relay
	tries  int                // relays named so far
	again  bool               // a relay that said gone was asked once more
	asked  int                // questions to the server
	answer <-chan whereabouts // to the last of them; nil when there is none to come
	last   whereabouts        // the last answer that came
	silent bool               // the peer did not answer a relay
}

// whereabouts is what the server says of a peer.
type whereabouts struct {
	online  bool
	relay   string // Relay.ID
	unknown bool   // not online, as far as the server knows yet
}

// newFinder makes the finder of an introduction. Its questions end with ctx.
func (p *peers) newFinder(ctx context.Context, id cert.NodeID) *finder {
	f := &finder{away: p.n.health.Has(status.CodeServerOffline), behind: p.r.control.Behind, askTime: p.n.inTime(askServer)}
	f.where = func(patience time.Duration) <-chan whereabouts {
		answer := make(chan whereabouts, 1)
		p.wg.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, patience)
			defer cancel()
			answer <- p.n.whereIs(ctx, id)
		})
		return answer
	}
	p.fill(f, id)
	return f
}

// fill has a finder begin with the relays that there are now.
func (p *peers) fill(f *finder, id cert.NodeID) {
	f.tries, f.asked = 0, 0
	if s, ok := p.n.held.Get(); ok {
		f.relays = s.Config.Relays
	}
	home := p.r.home.relay()
	if f.alone() {
		f.queue = []api.Relay{{}} // home, wherever that is
		return
	}
	hint := ""
	if k := p.n.dir.Get(id); k != nil {
		hint = k.Relay
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
}

// alone reports whether the network has but one relay.
func (f *finder) alone() bool { return len(f.relays) <= 1 }

// gone takes a relay's word that the peer is not there, or silent. The former may
// be of before the peer came back: when a connection is cleared away, the relay
// says so to whoever may wait for it. Who is really gone is said to be so again at
// once; and nobody is called offline whom the server sees online, unless they
// are silent (see silent.go).
func (f *finder) gone(rl api.Relay, silent bool) {
	f.silent = silent
	if !f.again && !silent {
		f.again = true
		f.queue = slices.Insert(f.queue, 0, rl)
	} else if f.alone() && !silent && !f.away {
		f.askFor(lastSeenWait) // somebody waits, and there is nothing else to try
	}
	f.ask()
}

// ask asks the server where the peer is now, if there is a choice.
func (f *finder) ask() {
	if !f.alone() {
		f.askFor(f.askTime)
	}
}

func (f *finder) askFor(patience time.Duration) {
	if f.answer == nil && f.asked < maxQuestions {
		f.asked++
		f.answer = f.where(patience)
	}
}

// next returns the relay to try, and whether there are more. What the server
// says goes first, and is waited for when there is nothing else.
func (f *finder) next() (rl api.Relay, more, ok bool) {
	if f.answer != nil {
		if len(f.queue) == 0 {
			f.take(<-f.answer)
		} else {
			select {
			case w := <-f.answer:
				f.take(w)
			default:
			}
		}
	}
	if len(f.queue) == 0 || f.tries >= maxAsked {
		return rl, false, false
	}
	rl, f.queue = f.queue[0], f.queue[1:]
	f.tries++
	return rl, len(f.queue) > 0, true
}

// unsure reports whether a peer that was found nowhere may yet be somewhere: the
// server does not know, or it is online at a relay that does not know of it yet, or
// is not known here.
func (f *finder) unsure() bool {
	switch {
	case f.silent:
		return false
	case f.last.online:
		return !f.alone() || !slices.ContainsFunc(f.relays, func(r api.Relay) bool { return r.ID == f.last.relay })
	}
	return f.last.unknown || f.behind()
}

// take puts the relay that the server named first, also when it was tried
// before: the server's word is newer.
func (f *finder) take(w whereabouts) {
	f.answer, f.last = nil, w
	if !w.online {
		return
	}
	at := api.Relay{} // home
	if !f.alone() {
		i := slices.IndexFunc(f.relays, func(r api.Relay) bool { return r.ID == w.relay })
		if i < 0 {
			return
		}
		at = f.relays[i]
	}
	f.queue = slices.DeleteFunc(f.queue, func(r api.Relay) bool { return r.ID == at.ID })
	f.queue = slices.Insert(f.queue, 0, at)
}

// whereIs asks the server where a peer is; not online when it does not know.
func (n *Node) whereIs(ctx context.Context, id cert.NodeID) whereabouts {
	s, ok := n.held.Get()
	if !ok {
		return whereabouts{}
	}
	p, err := n.client().Lookup(ctx, "id", id.String())
	var e *api.Error
	switch {
	case errors.As(err, &e) && e.Status == http.StatusNotFound:
		return whereabouts{}
	case err != nil:
		n.log.Debug("ask where a peer is", "peer", id, "err", err)
		return whereabouts{}
	}
	k, err := directory.KnownOf(*p, s.VerifyListed)
	if err != nil || k.Node.ID != id || !n.learn(s, k) {
		return whereabouts{}
	}
	return whereabouts{p.Online, p.Relay, p.Unknown && !p.Online}
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
		p.n.dir.SetRelay(q.id, q.way.relay().ID)
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
	st, ok := p.forwarder.Stats(q.id)
	return ok && time.Since(latest(st.LastTx, st.LastRx)) < movedAfter
}

// alone reports whether the network has but one relay: who is not there is
// offline.
func (p *peers) alone() bool {
	s, ok := p.n.held.Get()
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
