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
		"unanswered for a while":              {peer{session: session, unanswered: ago(11)}, 0.1, 60, actNothing},
		"unanswered":                          {peer{session: session, unanswered: ago(12.5)}, 0.1, 60, actPing},
		"unanswered, ping under way":          {peer{session: session, unanswered: ago(13), pinging: ago(1)}, 0.1, 60, actNothing},
		"unanswered, ping too":                {peer{session: session, unanswered: ago(15), pinging: ago(2.5)}, 0.1, 60, actCall},
		"unanswered, being introduced":        {peer{session: session, unanswered: ago(15), pinging: ago(2.5), dial: &dialing{}}, 0.1, 60, actNothing},
		"unanswered, tried a moment ago":      {peer{session: session, unanswered: ago(15), pinging: ago(2.5), nextRedial: in(1)}, 0.1, 60, actNothing},
		"ping answered since":                 {peer{session: session, unanswered: ago(15), proved: ago(1)}, 2, 60, actNothing},
		"ping answered before":                {peer{session: session, unanswered: ago(12.5), proved: ago(13)}, 0.1, 60, actPing},
		"unanswered, no session":              {peer{unanswered: ago(12.5), lost: ago(60)}, 0.1, 60, actCall},
		"unanswered, no session, just tried":  {peer{unanswered: ago(12.5), lost: ago(60), nextRedial: in(1)}, 0.1, 60, actNothing},
		"no session, traffic, we called":      {peer{ours: true, lost: ago(1)}, 0.5, 0.1, actCall},
		"no session, traffic, they called":    {peer{lost: ago(1)}, 0.5, 0.1, actNothing},
		"no session for long, they called":    {peer{lost: ago(4)}, 0.5, 0.1, actCall},
		"no session, no traffic since":        {peer{ours: true, lost: ago(1)}, 2, 2, actNothing},
		"no session, redialled a moment ago":  {peer{ours: true, lost: ago(1), nextHint: in(3)}, 0.5, 0.1, actNothing},
		"no session, being introduced":        {peer{ours: true, lost: ago(1), dial: &dialing{}}, 0.5, 0.1, actNothing},
		"no session, nothing for ten minutes": {peer{ours: true, lost: ago(900)}, 601, 601, actDrop},
	} {
		q := c.q
		got, again := q.judge(now, wg.Stats{LastTx: ago(c.tx), LastRx: ago(c.rx)}, time.Time{}, idleAfter)
		if got != c.want {
			t.Errorf("%s: action %d, want %d", name, got, c.want)
		}
		if got != actDrop && (!again.After(now) || again.After(now.Add(idleAfter))) {
			t.Errorf("%s: looks again in %v", name, again.Sub(now))
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
		st := wg.Stats{LastTx: at.Add(time.Millisecond), LastRx: at.Add(2 * time.Millisecond)}
		if act, _ := q.judge(at, st, time.Time{}, idleAfter); act == actCall {
			calls++
		}
	}
	if calls != 12 {
		t.Errorf("%d introductions in a minute, want 12", calls)
	}
}

// WireGuard's keepalive answers for data that nobody has to answer, and a
// tunnel that is quiet is not looked at before its time is over.
func TestJudgeQuiet(t *testing.T) {
	now := time.Now()
	q := peer{session: new(intro.Session)}
	st := wg.Stats{LastTx: now.Add(-11 * time.Second), LastRx: now.Add(-12 * time.Second)}
	act, again := q.judge(now, st, now.Add(-time.Second), idleAfter)
	if want := st.LastTx.Add(idleAfter); act != actNothing || !again.Equal(want) {
		t.Errorf("action %d, again in %v, want %v", act, again.Sub(now), want.Sub(now))
	}
}
