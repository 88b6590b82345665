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

// homes.Finder says at which relay a peer may be.
//
// A peer that is found at no relay is offline, unless nobody can know yet: the server or
// a relay has just started, the peer is moving to another relay, or this node does not
// have the current list of relays yet. Then they are tried again and again, for lookFor
// at most.
const (
	askServer   = 3 * time.Second        // for the server's answer
	askAgain    = 200 * time.Millisecond // mean pause before the relays are tried again; it grows each time
	askAgainMax = time.Second
	lookFor     = 12 * time.Second       // how long to try again, in all
	goneWait    = 700 * time.Millisecond // for the server's answer, when there is nothing else to try
)

var (
	// errNotThere is wrapped when a relay is unreachable.
	errNotThere = errors.New("the relay is unreachable")
	// errUnsure says that a peer was found at no relay but may still be online.
	errUnsure = errors.New("it is not known yet where the peer is")
)

// reach introduces this node to a peer at the relay where the peer is found.
func (t *Table) reach(ctx context.Context, q *peer, d *dialing) (*intro.Session, error) {
	asking, stop := context.WithCancel(ctx)
	defer stop()
	f := t.newFinder(asking, d.id)
	var failure error
	unsure, begun := false, time.Now()
	for wait := askAgain; ; {
		rl, more, ok := f.Next()
		if !ok {
			if unsure = f.Unsure(); !unsure {
				return nil, failure
			}
			if time.Since(begun) > lookFor || !pause.Sleep(ctx, pause.Jitter(wait)) {
				return nil, errUnsure
			}
			wait = min(2*wait, askAgainMax)
			t.log.Debug("it is not known yet where a peer is", "peer", d.id, "err", failure)
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
			return nil, err // from the peer itself
		}
		if failure == nil || errors.Is(failure, errNotThere) || errors.Is(failure, errGone) && !errors.Is(err, errNotThere) {
			failure = err
		}
	}
}

// reachAt introduces this node to a peer through one relay. If there are more relays to
// try it takes no longer than one attempt, unless the peer answers.
func (t *Table) reachAt(ctx context.Context, q *peer, d *dialing, rl api.Relay, more bool) (*intro.Session, error) {
	if err := t.inLoop(func() error { d.tried, d.answered = time.Now(), false; return nil }); err != nil {
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
	if err := t.inLoop(func() error { d.conn, d.gone = w, gone; return nil }); err != nil {
		return nil, err
	}
	return t.intro.Dial(ctx, d.id, func(s *intro.Session) {
		enough.Stop() // the peer is at this relay
		t.inLoop(func() error { return t.established(q, d, s) })
	})
}

// newFinder makes the finder of an introduction. Its requests end with ctx.
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
		FailedLately: t.guests.FailedLately, Behind: t.cfg.Behind,
		AskServer: func(patience time.Duration) <-chan homes.Presence {
			answer := make(chan homes.Presence, 1)
			t.wg.Go(func() {
				ctx, cancel := context.WithTimeout(ctx, patience)
				defer cancel()
				answer <- t.cfg.Where(ctx, id)
			})
			return answer
		},
		ServerAway: t.cfg.Health.Has(status.CodeServerOffline), AskTime: t.cfg.AskTime(askServer), GoneTime: goneWait,
	})
}
