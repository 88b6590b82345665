package overlay

import (
	"testing"
	"time"

	"weft/overlay/intro"
	"weft/overlay/wg"
)

// What becomes of a tunnel, by its counters. Times are seconds ago.
func TestJudge(t *testing.T) {
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	ago := func(seconds float64) time.Time {
		if seconds < 0 {
			return time.Time{}
		}
		return now.Add(-time.Duration(seconds * float64(time.Second)))
	}
	in := func(seconds float64) time.Time { return now.Add(time.Duration(seconds * float64(time.Second))) }
	session := new(intro.Session)
	const never = -1
	for name, c := range map[string]struct {
		q      peer
		tx, rx float64
		want   action
	}{
		"new":                                 {peer{session: session, made: ago(1)}, never, never, actNothing},
		"both ways":                           {peer{session: session}, 1, 0.5, actNothing},
		"nothing for ten minutes":             {peer{session: session}, 600, 601, actDrop},
		"never anything for ten minutes":      {peer{session: session, made: ago(600)}, never, never, actDrop},
		"made again after ten minutes":        {peer{session: session, made: ago(5)}, 700, 700, actNothing},
		"received only":                       {peer{session: session}, 700, 1, actNothing},
		"sent a moment ago":                   {peer{session: session}, 1, 60, actNothing},
		"unanswered":                          {peer{session: session, unanswered: ago(2.5)}, 0.1, 60, actPing},
		"unanswered, ping under way":          {peer{session: session, unanswered: ago(3), pinging: ago(1)}, 0.1, 60, actNothing},
		"unanswered, ping too":                {peer{session: session, unanswered: ago(5), pinging: ago(2.5)}, 0.1, 60, actCall},
		"unanswered, being introduced":        {peer{session: session, unanswered: ago(5), pinging: ago(2.5), dial: &dialing{}}, 0.1, 60, actNothing},
		"unanswered, tried a moment ago":      {peer{session: session, unanswered: ago(5), pinging: ago(2.5), nextRedial: in(1)}, 0.1, 60, actNothing},
		"unanswered, ping answered":           {peer{session: session, unanswered: in(6)}, 0.1, 60, actNothing},
		"unanswered, no session":              {peer{unanswered: ago(2.5), lost: ago(60)}, 0.1, 60, actCall},
		"unanswered, no session, just tried":  {peer{unanswered: ago(2.5), lost: ago(60), nextRedial: in(1)}, 0.1, 60, actNothing},
		"no session, traffic, we called":      {peer{ours: true, lost: ago(1)}, 0.5, 0.1, actCall},
		"no session, traffic, they called":    {peer{lost: ago(1)}, 0.5, 0.1, actNothing},
		"no session for long, they called":    {peer{lost: ago(4)}, 0.5, 0.1, actCall},
		"no session, no traffic since":        {peer{ours: true, lost: ago(1)}, 2, 2, actNothing},
		"no session, redialled a moment ago":  {peer{ours: true, lost: ago(1), nextHint: in(3)}, 0.5, 0.1, actNothing},
		"no session, being introduced":        {peer{ours: true, lost: ago(1), dial: &dialing{}}, 0.5, 0.1, actNothing},
		"no session, nothing for ten minutes": {peer{ours: true, lost: ago(900)}, 601, 601, actDrop},
	} {
		q := c.q
		if got := q.judge(now, wg.Stats{LastTx: ago(c.tx), LastRx: ago(c.rx)}, idleAfter); got != c.want {
			t.Errorf("%s: action %d, want %d", name, got, c.want)
		}
	}
}

// A lost session is redialled once in a while and not with every tick.
func TestJudgeSpacing(t *testing.T) {
	now := time.Now()
	q := peer{ours: true, lost: now}
	calls := 0
	for s := range 60 {
		at := now.Add(time.Duration(s) * time.Second)
		if q.judge(at, wg.Stats{LastTx: at.Add(time.Millisecond), LastRx: at.Add(2 * time.Millisecond)}, idleAfter) == actCall {
			calls++
		}
	}
	if calls != 12 {
		t.Errorf("%d introductions in a minute, want 12", calls)
	}
}
