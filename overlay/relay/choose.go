package relay

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"net"
	"slices"
	"sort"
	"time"

	"weft/overlay/api"
	"weft/overlay/cert"
	"weft/overlay/link"
)

// Which relay a node connects to: the nearest at first, then the next in an order that
// others can compute.

const (
	// raceTime is how long a new node waits until one of all relays is connected. That
	// takes three round trips, which are long behind a full uplink.
	raceTime = 12 * time.Second
	maxRace  = 8 // how many relays a new node tries at once
)

// Order returns relays in the order in which node tries them, by rendezvous hash. A
// caller that does not find a node at its last known home tries the same order, and so
// finds it while the server is unreachable.
func Order(relays []api.Relay, node cert.NodeID) []api.Relay {
	score := func(r api.Relay) []byte {
		s := sha256.Sum256(append([]byte(r.ID), node[:]...))
		return s[:]
	}
	out := slices.Clone(relays)
	sort.SliceStable(out, func(i, j int) bool { return bytes.Compare(score(out[i]), score(out[j])) > 0 })
	return out
}

// choose returns the relay to try next.
func (h *Home) choose(ctx context.Context, fails int, since time.Time) (api.Relay, bool) {
	relays := h.cfg.Relays()
	if len(relays) == 0 {
		return api.Relay{}, false
	}
	if len(relays) == 1 {
		return relays[0], true
	}
	h.mu.Lock()
	home := h.home
	leaving := h.leave == home && time.Now().Before(h.until)
	h.mu.Unlock()
	order := Order(relays, h.cfg.Self)
	i := slices.IndexFunc(order, func(r api.Relay) bool { return r.ID == home })
	if i < 0 {
		if rl, ok := h.race(ctx, order[:min(len(order), maxRace)]); ok {
			return rl, true
		}
		return order[fails%len(order)], true
	}
	own := order[i]
	others := slices.Delete(order, i, i+1)
	switch {
	case leaving:
		return append(others, own)[fails%len(relays)], true
	case since.IsZero() || time.Since(since) < moveAfter:
		return own, true
	}
	// Try all in turn.
	return append(others, own)[fails%len(relays)], true
}

// race dials all relays and returns the one whose link is complete first, which is the
// nearest in round trips. connect uses that link: a second one to the same relay would
// replace it.
func (h *Home) race(ctx context.Context, relays []api.Relay) (api.Relay, bool) {
	ctx, cancel := context.WithTimeout(ctx, raceTime)
	defer cancel()
	type result struct {
		rl api.Relay
		c  net.Conn
	}
	results := make(chan result, len(relays))
	for _, rl := range relays {
		go func() {
			c, err := h.dial(ctx, rl)
			if err != nil {
				c = nil
			}
			results <- result{rl, c}
		}()
	}
	var first result
	for range relays { // wait for all, so that no goroutine outlives this call
		switch r := <-results; {
		case r.c == nil:
		case first.c == nil:
			first = r
			cancel()
		default:
			link.CloseNow(r.c)
		}
	}
	h.raced = first.c
	return first.rl, first.c != nil
}

func (h *Home) dial(ctx context.Context, rl api.Relay) (net.Conn, error) {
	var errs []error
	for _, url := range rl.URLs {
		c, err := h.cfg.Dial(ctx, rl.ID, url)
		if err == nil {
			return c, nil
		}
		errs = append(errs, err)
		if ctx.Err() != nil {
			break
		}
	}
	if len(errs) == 0 {
		return nil, errors.New("the relay has no address")
	}
	return nil, errors.Join(errs...)
}
