package tunnels

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"weft/overlay/cert"
	"weft/overlay/internal/bind"
	"weft/overlay/internal/dataplane"
	"weft/overlay/internal/directory"
	"weft/overlay/internal/homes"
	"weft/overlay/internal/hosttest"
	"weft/overlay/internal/intro"
	"weft/overlay/internal/network"
	"weft/overlay/internal/paths"
	"weft/overlay/relay"
	"weft/overlay/status"
)

// bare returns a Table whose calls are run, without relays and without a plane, so that
// no introduction is made.
func bare(t *testing.T) *Table {
	cfg := Config{
		Held: new(network.Holder), Directory: directory.New(time.Now), Health: new(status.Warnings), Log: slog.New(slog.DiscardHandler),
		Bind: bind.New(bind.Config{}), Forwarder: dataplane.New(dataplane.Config{Net: hosttest.NewNet()}),
	}
	ctx, cancel := context.WithCancel(context.Background())
	tb := &Table{
		cfg: cfg, log: cfg.Log, bind: cfg.Bind, forwarder: cfg.Forwarder, ctx: ctx,
		calls: make(chan func(), 256), table: map[cert.NodeID]*peer{}, silent: map[cert.NodeID]time.Time{},
	}
	tb.paths = paths.New(paths.Config{Bind: cfg.Bind, UDP: paths.UDP{Off: true}})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case f := <-tb.calls:
				f()
			case <-ctx.Done():
				return
			}
		}
	}()
	t.Cleanup(func() { cancel(); <-done })
	return tb
}

// A relay that repeats its report of a silent peer makes the node wait once, not once for
// each report.
func TestSilentIsAwaitedOnce(t *testing.T) {
	var q peer
	first, second := &dialing{}, &dialing{}
	conn := homes.RelayConn(&homes.Guest{})
	for i := range 1000 {
		if got := q.await(silence{first, conn}); got != (i == 0) {
			t.Fatalf("word %d: waits %v", i, got)
		}
	}
	if !q.await(silence{second, conn}) {
		t.Error("the next introduction does not wait")
	}
}

// When a relay's report of a silent peer ends the introduction through that relay.
func TestSilent(t *testing.T) {
	conn, other := homes.RelayConn(&homes.Guest{}), homes.RelayConn(&homes.Guest{})
	for name, c := range map[string]struct {
		by    homes.RelayConn // the relay connection of the report; the peer was asked a second before
		first func(tb *Table, q *peer)
		later func(tb *Table, q *peer, anew context.CancelCauseFunc) // two seconds after the report
		after time.Duration                                          // how long after the report the introduction ends; 0: it does not
	}{
		"it is silent":           {by: conn, after: silentFor - time.Second},
		"another relay says so":  {by: other},
		"it answers meanwhile":   {by: conn, later: func(_ *Table, q *peer, _ context.CancelCauseFunc) { q.dial.answered = true }},
		"it is tried once more":  {by: conn, later: func(_ *Table, q *peer, _ context.CancelCauseFunc) { q.dial.tried = time.Now() }},
		"it is tried elsewhere":  {by: conn, later: func(_ *Table, q *peer, _ context.CancelCauseFunc) { q.dial.conn = other }},
		"it is called anew":      {by: conn, later: func(_ *Table, q *peer, anew context.CancelCauseFunc) { q.dial = &dialing{conn: conn, gone: anew} }},
		"it was found silent":    {by: conn, first: func(tb *Table, q *peer) { tb.silent[q.id] = time.Now().Add(-silentRemembered / 2) }, after: time.Nanosecond},
		"that was long ago":      {by: conn, first: func(tb *Table, q *peer) { tb.silent[q.id] = time.Now().Add(-2 * silentRemembered) }, after: silentFor - time.Second},
		"it has been asked long": {by: conn, first: func(_ *Table, q *peer) { q.asked = time.Now().Add(-silentFor) }, after: time.Nanosecond},
		"that was another time":  {by: conn, first: func(_ *Table, q *peer) { q.asked = time.Now().Add(-2 * answerMost) }, after: silentFor - time.Second},
		"the tunnel has ended":   {by: conn, later: func(tb *Table, q *peer, _ context.CancelCauseFunc) { delete(tb.table, q.id) }},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tb := bare(t)
				var end error
				var at time.Time
				gone := func(err error) { end, at = err, time.Now() }
				q := &peer{id: nodeID(1), dial: &dialing{id: nodeID(1), conn: conn, tried: time.Now(), gone: gone}}
				tb.inLoop(func() error { tb.table[q.id] = q; return nil })
				time.Sleep(time.Second)
				tb.inLoop(func() error {
					if c.first != nil {
						c.first(tb, q)
					}
					return nil
				})
				word := time.Now()
				tb.Gone(c.by, q.id, relay.GoneSilent)
				tb.Gone(c.by, q.id, relay.GoneSilent)
				time.Sleep(2 * time.Second)
				tb.inLoop(func() error {
					if c.later != nil {
						c.later(tb, q, gone)
					}
					return nil
				})
				time.Sleep(time.Minute)
				tb.inLoop(func() error {
					switch took := at.Sub(word); {
					case c.after == 0 && end != nil:
						t.Errorf("ended after %v: %v", took, end)
					case c.after != 0 && !errors.Is(end, errSilent):
						t.Errorf("not ended: %v", end)
					case c.after != 0 && took.Round(time.Second) != c.after.Round(time.Second):
						t.Errorf("ended after %v, want %v", took, c.after)
					}
					return nil
				})
			})
		})
	}
}

// A peer that was dropped while this node introduced itself to it gets no tunnel from a
// late answer.
func TestAnswerAfterTheTunnelWasDropped(t *testing.T) {
	tb := bare(t)
	q := &peer{id: nodeID(1)}
	cancelled := false
	q.dial = &dialing{id: q.id, cancel: func(error) { cancelled = true }}
	d := q.dial
	err := tb.inLoop(func() error {
		tb.table[q.id] = q
		tb.drop(q, "revoked", false)
		return tb.established(q, d, &intro.Session{Peer: &cert.Node{ID: q.id}})
	})
	if !errors.Is(err, errEnded) || !cancelled {
		t.Errorf("the answer makes a tunnel: %v; the introduction has ended: %v", err, cancelled)
	}
}
