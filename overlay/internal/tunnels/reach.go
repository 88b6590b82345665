package tunnels

import (
	"context"
	"errors"
	"fmt"
	"time"

	"weft/overlay/api"
	"weft/overlay/cert"
	"weft/overlay/internal/homes"
	"weft/overlay/internal/intro"
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
	askServer   = 3 * time.Second        // where it is
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
