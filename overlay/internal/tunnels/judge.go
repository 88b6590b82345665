package tunnels

import (
	"slices"
	"time"

	"weft/overlay/internal/dataplane"
	"weft/overlay/internal/path"
)

const (
	silentAfter    = 2 * time.Second  // data sent and sent again by UDP, nothing heard: ask over the session
	insistAfter    = time.Second      // "again": this long after the first of them. The last word of a talk is said once
	keptQuietAfter = 12 * time.Second // the same where nobody need answer: by now WireGuard's keepalive would have, after 10 s
	pingAnswer     = 5 * time.Second  // no answer to that, or for longer where round trips do: introduce anew
	answerMost     = 10 * time.Second // the most that any answer is waited for
	calledTurn     = 3 * time.Second  // a lost session is redialled by the side that did not call after this
)

type action int

const (
	actNothing action = iota
	actDrop           // idle for long
	actPing           // data unanswered: is the peer alive?
	actCall           // no: introduce anew
)

// patience is how long data may go unanswered that is sent again and again. A
// relay says by itself when a peer is gone or has no tunnel, and its TLS
// connection may well stand still for a while; nobody says so of UDP. What the
// session cannot carry is not asked.
func (t *Table) patience(q *peer) time.Duration {
	shown, trip := t.paths.Shown(q.id)
	if shown.Kind == path.Relay || !t.home.Connected() {
		return keptQuietAfter
	}
	return min(max(q.trip.Wait(silentAfter, keptQuietAfter), 3*time.Duration(trip.Load())), keptQuietAfter)
}

// judge decides what a tunnel needs, from its counters and from when a keepalive
// of the peer last came in, and when to ask again. It changes only the
// peer's notes about unanswered data and introductions.
//
// Probes say within a second that a path is dead, but nothing of whether the
// keys of both sides fit. What is unanswered for patience is therefore asked
// about over the session. To ask costs bytes, so it is not done for the last
// word of a talk, nor again and again for a flow to which nobody answers, such as
// a log by UDP: once the peer has said that it arrives, or WireGuard's keepalive
// has, only the keepalive is waited for until data come back.
func (q *peer) judge(now time.Time, st dataplane.Stats, kept time.Time, patience, idle time.Duration) (act action, again time.Time) {
	active := latest(st.LastTx, st.LastRx, q.made)
	end := active.Add(idle)
	if !now.Before(end) {
		return actDrop, now
	}
	answer := q.trip.Wait(pingAnswer, answerMost)
	if q.dial != nil {
		return actNothing, now.Add(answer)
	}
	if pause := st.LastTx.Add(dataplane.Pause); now.Before(pause) {
		end = earliest(end, pause) // data that goes on does not stir
	}
	heard := latest(st.LastIn, kept, q.proved)
	if !st.LastTx.After(heard) {
		q.unanswered, q.pinging = time.Time{}, time.Time{}
		return q.judgeSession(now, st, end)
	}
	if q.unanswered.IsZero() || heard.After(q.unanswered) {
		if !q.unanswered.IsZero() && kept.After(q.unanswered) {
			q.oneWay = kept
		}
		// Data have gone out since Stirred, without a pause to speak of.
		q.unanswered, q.pinging = latest(heard, st.Stirred), time.Time{}
	}
	if st.LastTx.Sub(q.unanswered) < insistAfter || q.oneWay.After(st.LastIn) {
		patience = keptQuietAfter
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

// judgeSession redials a lost session whose tunnel goes on: without it neither
// side can say bye. The side with traffic does it, first the one that called.
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
