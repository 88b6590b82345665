package relay

import (
	"context"
	"slices"
	"time"

	"weft/overlay/api"
)

// When a node checks that its home connection still works.

const wakeAnswer = 2 * time.Second // or longer, if the relay's answers are known to take longer

// Wake says that the connection may be dead or that an attempt may now succeed: the
// device slept, an interface came up, the list of relays changed, or somebody wants to
// send. Home pings the relay at once and drops the connection if no answer comes within 2
// s, or within the longer time that answers are known to take. A wait between attempts
// ends. Wake does not block.
func (h *Home) Wake() {
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

// Moved says that this machine has moved to another network. Home forgets how much
// silence the old one tolerated, and checks the connection.
func (h *Home) Moved() {
	h.mu.Lock()
	h.silence = silence{}
	h.mu.Unlock()
	h.Wake()
}

// checkOnWake pings after Wake and after silences, and sends held packets a second time
// (gap.go). It runs beside a connection until done is closed.
func (h *Home) checkOnWake(ctx context.Context, c *Conn, done chan struct{}) {
	var again *time.Timer
	var due <-chan time.Time
	var held []gapPacket
	silent := time.NewTimer(shortSilence) // the allowed silence is known after the welcome only
	defer silent.Stop()
	for {
		select {
		case <-silent.C:
			if again := h.askAfterSilence(ctx, c); again > 0 {
				silent.Reset(again)
			}
			continue
		case <-done:
			if again != nil {
				again.Stop()
			}
			return
		case held = <-h.held:
			again = time.NewTimer(gapAgain)
			due = again.C
			continue
		case <-due:
			h.gap.open.Store(false)
			c.resend(append(held, h.gap.take()...))
			held, due = nil, nil
			continue
		case <-h.wake:
		}
		if !h.listed() {
			c.fail(errRemoved)
			continue
		}
		c.Check(ctx)
		silent.Reset(shortSilence) // this may be another network, whose tolerance is unknown
	}
}

// listed reports whether the config still lists the home relay. A home whose ID was
// unknown, because it came from a token's URL, gets its ID and name here.
func (h *Home) listed() bool {
	relays := h.cfg.Relays()
	h.mu.Lock()
	at := h.state.Relay
	h.mu.Unlock()
	if len(relays) == 0 || at.ID == "" && len(at.URLs) == 0 {
		return true
	}
	i := slices.IndexFunc(relays, func(r api.Relay) bool {
		if at.ID == "" {
			return slices.ContainsFunc(r.URLs, func(u string) bool { return slices.Contains(at.URLs, u) })
		}
		return r.ID == at.ID
	})
	if i < 0 {
		return at.ID == "" // without an ID nobody can tell
	}
	h.mu.Lock()
	if h.home == at.ID {
		h.home = relays[i].ID
	}
	if h.state.Relay.ID == at.ID {
		h.state.Relay = relays[i]
	}
	h.mu.Unlock()
	return true
}

// askAfterSilence pings the relay if the connection has been silent for as long as is
// allowed. It returns the time until the next check, 0 for none.
func (h *Home) askAfterSilence(ctx context.Context, c *Conn) time.Duration {
	allowed := h.allowedSilence()
	silent := c.silent()
	if allowed == 0 || silent < allowed {
		return max(allowed-silent, 0)
	}
	ctx, cancel := context.WithTimeout(ctx, c.Answer(silenceAnswer))
	defer cancel()
	_, err := c.Ping(ctx)
	h.mu.Lock()
	if err == nil {
		h.silence.survived(silent)
	} else {
		h.silence.failed(time.Now(), silent)
	}
	h.mu.Unlock()
	if err != nil {
		c.fail(errForgotten)
	}
	return h.allowedSilence()
}

// allowedSilence returns after how much silence to ping the relay, 0 for never.
func (h *Home) allowedSilence() time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.silence.allowed(time.Now())
}
