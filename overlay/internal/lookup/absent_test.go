package lookup

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"weft/overlay/api"
	"weft/overlay/internal/directory"
	"weft/overlay/status"
)

// The error for an offline peer has the time when it was last seen, from the server.
func TestSinceWhen(t *testing.T) {
	w := newWorld(t)
	p, pi := w.device("kitchen-pi", 2)
	offline := &status.Error{Kind: status.KindUnreachable, Message: "kitchen-pi is offline", Hint: "turn it on"}
	now := time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)
	w.r.cfg.Now = func() time.Time { return now }
	at := func(ago time.Duration) *time.Time { seen := now.Add(-ago); return &seen }
	for _, c := range []struct {
		what   string
		held   *time.Time
		answer *api.Peer // nil: none
		want   string
	}{
		{"server and memory", at(3 * time.Hour), &api.Peer{Certificate: p.Certificate, LastSeen: at(2 * time.Hour)}, "kitchen-pi is offline (last seen 2026-11-29T10:00:00Z, 2 h ago)"},
		{"memory", at(3 * time.Hour), nil, "kitchen-pi is offline (last seen 2026-11-29T09:00:00Z, 3 h ago)"},
		{"a server that does not know", nil, &api.Peer{Certificate: p.Certificate}, "kitchen-pi is offline"},
		{"nobody", nil, nil, "kitchen-pi is offline"},
	} {
		k := &directory.Entry{Node: pi, Online: true}
		if c.held != nil {
			k.LastSeen = *c.held
		}
		w.cfg.Directory.Reset()
		w.cfg.Directory.Learn(k)
		w.lookup = func(string, string) (*api.Peer, error) {
			if c.answer == nil {
				return nil, errAway
			}
			return c.answer, nil
		}
		var e *status.Error
		err := w.r.SinceWhen(t.Context(), k, offline)
		if !errors.As(err, &e) || e.Kind != offline.Kind || e.Message != c.want || e.Hint != offline.Hint {
			t.Errorf("%s: %+v, want %s", c.what, e, c.want)
		}
		told := c.answer != nil && c.answer.LastSeen != nil
		if online := w.cfg.Directory.Peek(pi.ID).Online; online == told {
			t.Errorf("%s: known to be online: %v", c.what, online)
		}
	}
	if offline.Message != "kitchen-pi is offline" {
		t.Error("the error itself was changed")
	}
	w.questions()
	for _, other := range []error{errAway, &status.Error{Kind: status.KindDenied, Message: "denied"}} {
		if err := w.r.SinceWhen(t.Context(), &directory.Entry{Node: pi, LastSeen: now}, other); err != other {
			t.Errorf("%v became %v", other, err)
		}
	}
	if asked := w.questions(); asked != nil {
		t.Errorf("%q was asked", asked)
	}
}

// hung is a server that never answers.
type hung struct{}

func (hung) Lookup(ctx context.Context, kind, key string) (*api.Peer, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func (hung) Presence(ctx context.Context, ids []string) ([]api.Presence, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// A server that hangs delays each request for a bounded time only.
func TestServerThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		_, pi := w.device("kitchen-pi", 2)
		w.r.cfg.Server = func() Server { return hung{} }
		k := &directory.Entry{Node: pi, Listed: true, Online: true}
		took := func(what string, want time.Duration, ask func()) {
			t.Helper()
			begun := time.Now()
			if ask(); time.Since(begun) != want {
				t.Errorf("%s took %v, want %v", what, time.Since(begun), want)
			}
		}
		took("a name", answerWait, func() {
			if _, err := w.r.Find(t.Context(), "cam"); status.KindOf(err) != status.KindUnavailable {
				t.Error(err)
			}
		})
		took("since when", seenWait, func() {
			w.r.SinceWhen(t.Context(), k, &status.Error{Kind: status.KindUnreachable, Message: "offline"})
		})
		w.cfg.Directory.Learn(k)
		p := w.r.NewPresence(hung{}, nobody)
		took("who is online", presenceWait, func() { p.Ask(t.Context(), pi.ID) })
		took("the same again", 0, func() { p.Ask(t.Context(), pi.ID) })
	})
}
