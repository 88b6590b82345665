package tunnels

import (
	"slices"
	"time"

	"weft/overlay/internal/dataplane"
	"weft/overlay/internal/path"
)

const (
	silentAfter         = 2 * time.Second  // data sent and sent again over UDP, nothing received: ping over the session
	insistAfter         = time.Second      // what counts as "sent again": this long after the first. The last packet of an exchange is sent once
	keepaliveQuietAfter = 12 * time.Second // the same if no answer is needed: WireGuard's keepalive would have arrived, after 10 s
	pingAnswer          = 5 * time.Second  // without an answer after this time, or longer if round trips are slow: introduce anew
	answerMost          = 10 * time.Second // longest wait for any answer
	calledTurn          = 3 * time.Second  // when the former callee redials a lost session
)

type action int

const (
	actNothing action = iota
	actDrop           // it was idle for long
	actPing           // data have no answer: is the peer alive?
	actCall           // the peer does not answer: introduce anew
)

// patience returns how long retransmitted data may have no answer. A relay reports by
// itself when a peer is gone or has no tunnel, and its TLS connection may stall for a
// while; with UDP nobody reports that. Without a session there is no question to ask.
func (t *Table) patience(q *peer) time.Duration {
	shown, trip := t.paths.Shown(q.id)
	if shown.Kind == path.Relay || !t.home.Connected() {
		return keepaliveQuietAfter
	}
	return min(max(q.trip.Wait(silentAfter, keepaliveQuietAfter), 3*time.Duration(trip.Load())), keepaliveQuietAfter)
}

// judge decides what a tunnel needs, from its counters and from the time of the peer's
// last keepalive, and when to call it again. It changes only the peer's fields about
// unanswered data and introductions.
//
// Probes show within a second that a path is dead, but not whether the keys of both sides
// match. So when data have had no answer for patience, this node pings the peer over the
// session. A ping costs bytes. So none is sent for the last packet of an exchange, and
// not repeatedly for a flow without answers, such as a log over UDP: once the peer has
// said that data arrive, or WireGuard's keepalive has shown it, only keepalives are
// awaited until data come back.
func (q *peer) judge(now time.Time, st dataplane.Stats, keepalive time.Time, patience, idle time.Duration) (act action, again time.Time) {
	active := latest(st.LastTx, st.LastRx, q.made)
	end := active.Add(idle)
	if !now.Before(end) {
		return actDrop, now
	}
	answer := q.trip.Wait(pingAnswer, answerMost)
	if q.dial != nil {
		return actNothing, now.Add(answer)
	}
	if pause := st.LastTx.Add(dataplane.ResumeAfter); now.Before(pause) {
		end = earliest(end, pause) // a flow that continues does not call Resumed
	}
	received := latest(st.LastIn, keepalive, q.proved)
	if !st.LastTx.After(received) {
		q.unanswered, q.pinging = time.Time{}, time.Time{}
		return q.judgeSession(now, st, end)
	}
	if q.unanswered.IsZero() || received.After(q.unanswered) {
		if !q.unanswered.IsZero() && keepalive.After(q.unanswered) {
			q.oneWay = keepalive
		}
		// Data were sent since Stats.Resumed without a long pause.
		q.unanswered, q.pinging = latest(received, st.Resumed), time.Time{}
	}
	if st.LastTx.Sub(q.unanswered) < insistAfter || q.oneWay.After(st.LastIn) {
		patience = keepaliveQuietAfter
	}
	if due := q.unanswered.Add(patience); q.pinging.IsZero() && now.Before(due) {
		act, again = q.judgeSession(now, st, end)
		return act, earliest(again, due)
	}
	switch {
	case !q.pinging.IsZero() && now.Before(q.pinging.Add(answer)):
		return actNothing, q.pinging.Add(answer)
	case q.pinging.IsZero() && q.session != nil:
		return actPing, now.Add(answer)
	case now.Before(q.nextRedial):
		return actNothing, q.nextRedial
	}
	return actCall, now.Add(answer)
}

// judgeSession redials a lost session whose tunnel continues: without it neither side can
// send bye. The side with traffic does it, the former caller first.
func (q *peer) judgeSession(now time.Time, st dataplane.Stats, end time.Time) (act action, again time.Time) {
	if q.session != nil || !st.LastTx.After(q.lost) {
		return actNothing, end
	}
	turn := q.lost
	if !q.ours {
		turn = turn.Add(calledTurn)
	}
	if due := latest(turn, q.nextRedial, q.nextHint); now.Before(due) {
		return actNothing, earliest(due, end)
	}
	q.nextHint = now.Add(resetSpacing)
	return actCall, q.nextHint
}

func latest(ts ...time.Time) time.Time { return slices.MaxFunc(ts, time.Time.Compare) }

func earliest(ts ...time.Time) time.Time { return slices.MinFunc(ts, time.Time.Compare) }
