package tunnels

import (
	"time"

	"weft/overlay/cert"
	"weft/overlay/internal/directory"
	"weft/overlay/internal/intro"
)

// The life of a tunnel after its introduction. Tunnels are not checked periodically: each
// has a time at which something may be due, and the owner sleeps until the first of
// these. Data after a pause (Resumed), a lost session and an introduction bring that time
// forward. So a quiet tunnel costs nothing until its ten minutes are over.

// How long a tunnel lives. An introduction makes it. It ends only by bye, revocation,
// expiry of a certificate, policy or replacement. Whatever a relay reports or does costs
// at most another introduction.
const (
	idleAfter   = 10 * time.Minute       // without data: send bye and drop the peer
	lastShare   = 6                      // a peer with traffic is introduced anew in the last sixth of its certificate's life
	expirySlack = time.Second            // a certificate is valid until its last second is over
	renewMin    = 500 * time.Millisecond // between such introductions

	// A tunnel of intro.SuiteAES that is in use gets fresh keys at least every two hours, by
	// another introduction: the former caller begins, and the other side if it does not.
	// While no relay can be reached the tunnel continues; its keys change every two minutes
	// anyway (package gcm).
	keysLife    = 110 * time.Minute
	keysTurn    = 5 * time.Minute
	keysSpacing = time.Minute
)

// Resumed is called by the forwarder when data are sent after a pause.
func (t *Table) Resumed() { t.hint(t.checkSoon) }

// checkSoon schedules a check for when data sent now may count as unanswered.
func (t *Table) checkSoon() {
	now := time.Now()
	if t.rekeyed {
		t.checkAt(now)
	}
	t.checkAt(now.Add(silentAfter))
	t.paths.Resume(now)
}

// checkAt schedules a check of the tunnels at this time, or earlier.
func (t *Table) checkAt(at time.Time) {
	if t.nextCheck.IsZero() || at.Before(t.nextCheck) {
		t.nextCheck = at
	}
}

// check does what each tunnel needs, and schedules the next check.
func (t *Table) check(now time.Time) {
	t.nextCheck, t.rekeyed = time.Time{}, false
	weftNow := t.cfg.Clock.Now()
	for _, q := range t.table {
		if !q.installed() {
			continue
		}
		st, ok := t.forwarder.Stats(q.id)
		if !ok {
			continue
		}
		if weftNow.After(q.node.NotAfter) {
			// It may have a new one by now, but must present it.
			t.endAndRedial(q, "its certificate has expired", true)
			continue
		}
		ending := t.renewPeer(q, now, st.LastTx)
		if !q.gone.IsZero() && st.LastRx.After(q.gone) {
			q.gone = time.Time{} // the relay said that it is gone, but it is not
			t.cfg.Directory.SetPresence(directory.Presence{ID: q.id, Online: true})
			t.publish()
		}
		act, again := q.judge(now, st, q.endpoint.LastKeepalive(), t.patience(q), t.cfg.Idle)
		switch act {
		case actDrop:
			t.drop(q, "idle", true)
			continue
		case actPing:
			t.ping(q, now, st.LastTx)
		case actCall:
			t.call(q, nil)
		}
		t.sendKey(q, now, st)
		t.refresh(q, now, st.LastTx)
		t.checkAt(earliest(again, ending))
	}
	if again := t.cfg.Filters.Note(now); !again.IsZero() {
		t.checkAt(again)
	}
}

// renewPeer introduces this node anew to a peer with traffic before the peer's
// certificate expires, so that the peer presents its new one and the tunnel continues
// without a break. It returns when to check the certificate again.
func (t *Table) renewPeer(q *peer, now time.Time, sent time.Time) (again time.Time) {
	if due := t.renewal(q.node); now.Before(due) {
		return due
	}
	end := t.expiry(q.node)
	if now.Sub(sent) > silentAfter+recently { // later data will call Resumed
		return end
	}
	if q.dial == nil && !now.Before(latest(q.nextRenew, q.nextRedial)) {
		q.nextRenew = now.Add(max(end.Sub(now)/4, renewMin)) // it may have no new one yet
		t.call(q, nil)
	}
	return earliest(end, latest(now.Add(renewMin), q.nextRenew, q.nextRedial))
}

// refresh introduces this node anew to a peer whose keys are old, if data were sent lately.
func (t *Table) refresh(q *peer, now, sent time.Time) {
	if q.suite != intro.SuiteAES {
		return
	}
	due := q.keyed.Add(keysLife)
	if !q.ours {
		due = due.Add(keysTurn)
	}
	switch due = latest(due, q.refreshed.Add(keysSpacing), q.nextRedial); {
	case now.Before(due):
		t.checkAt(due)
	case now.Sub(sent) > silentAfter+recently: // later data will call Resumed
	case q.dial == nil:
		q.refreshed = now
		t.call(q, nil)
		t.checkAt(now.Add(keysSpacing))
	}
}

// renewal returns when, by the machine's clock, a node should present a new certificate:
// it has renewed it at two thirds of its life.
func (t *Table) renewal(n *cert.Node) time.Time {
	return t.expiry(n).Add(-expirySlack - n.NotAfter.Sub(n.NotBefore)/lastShare)
}

// expiry returns when, by the machine's clock, a node's certificate expires.
func (t *Table) expiry(n *cert.Node) time.Time {
	return time.Now().Add(n.NotAfter.Sub(t.cfg.Clock.Now()) + expirySlack)
}
