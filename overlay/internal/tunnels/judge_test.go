package tunnels

import (
	"testing"
	"time"

	"weft/overlay/internal/dataplane"
	"weft/overlay/internal/intro"
	"weft/overlay/rtt"
)

// What a tunnel needs, by its counters. Times are in seconds before now.
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
	trip := func(seconds float64) (e rtt.Estimate) {
		e.Add(time.Duration(seconds * float64(time.Second)))
		return e
	}
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
		"unanswered for a moment":             {peer{session: session, unanswered: ago(1.9)}, 0.1, 60, actNothing},
		"unanswered":                          {peer{session: session, unanswered: ago(2.1)}, 0.1, 60, actPing},
		"the last word, unanswered":           {peer{session: session, unanswered: ago(11)}, 11, 60, actNothing},
		"the last word, not even a keepalive": {peer{session: session, unanswered: ago(12.5)}, 12.5, 60, actPing},
		"one way":                             {peer{session: session, unanswered: ago(11), oneWay: ago(15)}, 0.1, 60, actNothing},
		"one way, not even a keepalive":       {peer{session: session, unanswered: ago(12.5), oneWay: ago(15)}, 0.1, 60, actPing},
		"one way before data came":            {peer{session: session, unanswered: ago(2.1), oneWay: ago(61)}, 0.1, 60, actPing},
		"unanswered, ping under way":          {peer{session: session, unanswered: ago(3), pinging: ago(1)}, 0.1, 60, actNothing},
		"unanswered, ping for a while":        {peer{session: session, unanswered: ago(6), pinging: ago(4)}, 0.1, 60, actNothing},
		"unanswered, ping too":                {peer{session: session, unanswered: ago(8), pinging: ago(5.5)}, 0.1, 60, actCall},
		"unanswered, ping said so":            {peer{session: session, unanswered: ago(3), pinging: ago(10), oneWay: ago(0)}, 0.1, 60, actCall},
		"unanswered, but it takes long":       {peer{session: session, unanswered: ago(9), pinging: ago(7), trip: trip(3)}, 0.1, 60, actNothing},
		"unanswered, beyond all that":         {peer{session: session, unanswered: ago(13), pinging: ago(10.5), trip: trip(30)}, 0.1, 60, actCall},
		"unanswered, being introduced":        {peer{session: session, unanswered: ago(5), pinging: ago(2.5), dial: &dialing{}}, 0.1, 60, actNothing},
		"unanswered, tried a moment ago":      {peer{session: session, unanswered: ago(5), pinging: ago(2.5), nextRedial: in(1)}, 0.1, 60, actNothing},
		"ping answered since":                 {peer{session: session, unanswered: ago(15), proved: ago(1)}, 2, 60, actNothing},
		"ping answered before":                {peer{session: session, unanswered: ago(2.5), proved: ago(3)}, 0.1, 60, actPing},
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
		got, again := q.judge(now, dataplane.Stats{LastTx: ago(c.tx), LastRx: ago(c.rx), LastIn: ago(c.rx), Resumed: ago(c.tx)}, time.Time{}, silentAfter, idleAfter)
		if got != c.want {
			t.Errorf("%s: action %d, want %d", name, got, c.want)
		}
		if got != actDrop && (!again.After(now) || again.After(now.Add(idleAfter))) {
			t.Errorf("%s: looks again in %v", name, again.Sub(now))
		}
	}
}

// A lost session is redialled now and then, not with every check.
func TestJudgeSpacing(t *testing.T) {
	now := time.Now()
	q := peer{ours: true, lost: now}
	calls := 0
	for s := range 60 {
		at := now.Add(time.Duration(s) * time.Second)
		st := dataplane.Stats{LastTx: at.Add(time.Millisecond), LastIn: at.Add(2 * time.Millisecond)}
		if act, _ := q.judge(at, st, time.Time{}, silentAfter, idleAfter); act == actCall {
			calls++
		}
	}
	if calls != 12 {
		t.Errorf("%d introductions in a minute, want 12", calls)
	}
}

// WireGuard's keepalive counts as the answer to data that need none, and a quiet tunnel
// is not checked before its time is over.
func TestJudgeQuiet(t *testing.T) {
	now := time.Now()
	q := peer{session: new(intro.Session)}
	st := dataplane.Stats{LastTx: now.Add(-11 * time.Second), LastIn: now.Add(-12 * time.Second)}
	act, again := q.judge(now, st, now.Add(-time.Second), silentAfter, idleAfter)
	if want := st.LastTx.Add(idleAfter); act != actNothing || !again.Equal(want) {
		t.Errorf("action %d, again in %v, want %v", act, again.Sub(now), want.Sub(now))
	}
}

// The cost of knowing that data without answers arrive: one ping at most, and none if
// WireGuard's keepalive arrives first.
func TestJudgeOneWay(t *testing.T) {
	start := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	for name, c := range map[string]struct {
		every    time.Duration // between packets
		patience time.Duration
		deaf     bool // nothing arrives
		pings    int  // in an hour
		first    time.Duration
		calls    bool
	}{
		"a stream":                       {100 * time.Millisecond, silentAfter, false, 1, 2 * time.Second, false},
		"a stream through the relay":     {100 * time.Millisecond, keepaliveQuietAfter, false, 0, 0, false},
		"a reading every five seconds":   {5 * time.Second, silentAfter, false, 1, 7 * time.Second, false},
		"a reading a minute":             {time.Minute, silentAfter, false, 0, 0, false},
		"a stream that does not arrive":  {100 * time.Millisecond, silentAfter, true, 300, 2 * time.Second, true},
		"readings that do not arrive":    {5 * time.Second, silentAfter, true, 300, 7 * time.Second, true},
		"one a minute that does neither": {time.Minute, silentAfter, true, 60, 12 * time.Second, false},
	} {
		q := peer{session: new(intro.Session), made: start, proved: start.Add(-time.Millisecond)}
		st := dataplane.Stats{LastTx: start, Resumed: start, LastIn: start.Add(-time.Second)}
		var keepalive, kept, first time.Time // the next keepalive, the last, the first ping
		pings, calls := 0, 0
		next, look := start, start
		for now := start; now.Before(start.Add(time.Hour)); now = now.Add(50 * time.Millisecond) {
			if !now.Before(next) {
				if now.Sub(st.LastTx) > dataplane.ResumeAfter {
					st.Resumed = now
					look = earliest(look, now.Add(silentAfter))
				}
				st.LastTx, next = now, now.Add(c.every)
				if keepalive.IsZero() && !c.deaf {
					keepalive = now.Add(10 * time.Second)
				}
			}
			if !keepalive.IsZero() && !now.Before(keepalive) {
				kept, keepalive = now, time.Time{}
			}
			if now.Before(look) {
				continue
			}
			var act action
			switch act, look = q.judge(now, st, kept, c.patience, idleAfter); act {
			case actPing:
				if pings++; pings == 1 {
					first = now
				}
				q.pinging = now
				pong := intro.Pong{LastReceived: now.Sub(st.LastTx) + time.Millisecond}
				if c.deaf {
					pong.LastReceived = -1
				}
				q.answered(now, st.LastTx, pong)
				look = now
			case actCall: // the introduction succeeds
				calls++
				q.unanswered, q.pinging, q.proved = time.Time{}, time.Time{}, now
			case actDrop:
				t.Fatalf("%s: dropped", name)
			}
		}
		if pings > c.pings || c.pings > 0 && (pings == 0 || first.Sub(start) > c.first+200*time.Millisecond) || (calls > 0) != c.calls {
			t.Errorf("%s: %d pings, the first after %v, %d introductions; want at most %d pings, the first after %v, introductions %v", name, pings, first.Sub(start), calls, c.pings, c.first, c.calls)
		}
	}
}
