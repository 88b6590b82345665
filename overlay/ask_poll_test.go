package overlay

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"weft/overlay/api"
	"weft/overlay/status"
)

// Who waits ten minutes in vain asks few times, hears of it soon after, and goes on
// meanwhile though the server does not answer for a while.
func TestPollAsk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begun, polls := time.Now(), 0
		res, err := pollAsk(t.Context(), begun, func(context.Context) (*api.Asked, error) {
			polls++
			switch took := time.Since(begun); {
			case took > 3*time.Minute && took < 4*time.Minute:
				return nil, errors.New("no route to host")
			case took > 5*time.Minute && took < 6*time.Minute:
				return nil, &api.Error{Status: http.StatusServiceUnavailable, Code: api.CodeUnavailable, Message: "busy"}
			case took >= api.AskLife:
				return &api.Asked{State: api.AskUnknown}, nil
			}
			return &api.Asked{State: api.AskWaiting}, nil
		})
		took := time.Since(begun)
		if err != nil || took > api.AskLife+slowPoll*5/4 || polls < 40 || polls > 90 {
			t.Errorf("%+v, %v after %v and %d polls", res, err, took, polls)
		}
		if err := notLetIn(res.State, took); status.KindOf(err) != status.KindTimeout {
			t.Error(err)
		}
		// A server that has forgotten it before that is asked again.
		if err := notLetIn(api.AskUnknown, time.Minute); err != nil {
			t.Error(err)
		}
		if err := notLetIn("later word", 0); status.KindOf(err) != status.KindFailed {
			t.Error(err)
		}
		// A refusal that is final ends it at once; so does the end of the context.
		if _, err := pollAsk(t.Context(), time.Now(), func(context.Context) (*api.Asked, error) {
			return nil, &api.Error{Status: http.StatusNotFound, Code: api.CodeNotFound}
		}); err == nil {
			t.Error("it went on")
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := pollAsk(ctx, time.Now(), func(context.Context) (*api.Asked, error) { return &api.Asked{State: api.AskWaiting}, nil }); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
	})
}
