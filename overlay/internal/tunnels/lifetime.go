package tunnels

import (
	"time"

	"weft/overlay/cert"
	"weft/overlay/internal/directory"
)

// The life of a tunnel after its introduction. No tunnel is watched by the
// clock: each has a time at which something could be due, and the owning
// goroutine sleeps until the first of them. Data after a pause (stirred), a
// lost session and an introduction bring that time forward. So a tunnel that
// is quiet costs nothing until its ten minutes are over.

// How long a tunnel lives. It is made by an introduction and
// ends only by bye, revocation, the end of a certificate, policy or
// replacement. Whatever a relay says or does costs at most another
// introduction.
const (
	idleAfter   = 10 * time.Minute       // without data: say bye and drop the peer
	lastShare   = 6                      // a peer with traffic is introduced anew in the last sixth of its certificate's life
	expirySlack = time.Second            // a certificate is good until its last second is over
	renewMin    = 500 * time.Millisecond // between such introductions
)

// Stirred is called by the forwarder when data goes out after a pause.
func (t *Table) Stirred() { t.hint(t.lookSoon) }

// lookSoon has the tunnels looked at once what was sent just now could be
// found unanswered.
func (t *Table) lookSoon() {
	now := time.Now()
	if t.rekeyed {
		t.lookAt(now)
	}
	t.lookAt(now.Add(silentAfter))
	t.paths.Stir(now)
}

// lookAt has the tunnels looked at, then at the latest.
func (t *Table) lookAt(at time.Time) {
	if t.nextLook.IsZero() || at.Before(t.nextLook) {
		t.nextLook = at
	}
}

// look gives every tunnel what it needs and notes when to look again.
func (t *Table) look(now time.Time) {
	t.nextLook, t.rekeyed = time.Time{}, false
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
			// It may have a new one by now, but has to show it.
			t.endAndRedial(q, "its certificate has expired", true)
			continue
		}
		ending := t.renewPeer(q, now, st.LastTx)
		if !q.gone.IsZero() && st.LastRx.After(q.gone) {
			q.gone = time.Time{} // the relay said so, and yet it is there
			t.cfg.Directory.SetPresence(directory.Sighting{ID: q.id, Online: true})
			t.publish()
		}
		act, again := q.judge(now, st, q.endpoint.Kept(), t.patience(q), t.cfg.Idle)
		switch act {
		case actDrop:
			t.drop(q, "idle", true)
			continue
		case actPing:
			t.ping(q, now, st.LastTx)
		case actCall:
			t.call(q, nil)
		}
		t.tellKey(q, now, st)
		t.lookAt(earliest(again, ending))
	}
	if again := t.cfg.Filters.Note(now); !again.IsZero() {
		t.lookAt(again)
	}
}

// renewPeer has a peer with traffic show its new certificate before the one
// that it showed ends, so that the tunnel goes on without a break. It returns
// when to look at the certificate again.
func (t *Table) renewPeer(q *peer, now time.Time, sent time.Time) (again time.Time) {
	if due := t.renewal(q.node); now.Before(due) {
		return due
	}
	end := t.expiry(q.node)
	if now.Sub(sent) > silentAfter+recently { // data that comes later stirs
		return end
	}
	if q.dial == nil && !now.Before(latest(q.nextRenew, q.nextRedial)) {
		q.nextRenew = now.Add(max(end.Sub(now)/4, renewMin)) // it may not have a new one yet
		t.call(q, nil)
	}
	return earliest(end, latest(now.Add(renewMin), q.nextRenew, q.nextRedial))
}

// renewal is when, by the machine's clock, a node should show a new
// certificate: it has renewed it at two thirds of its life.
func (t *Table) renewal(n *cert.Node) time.Time {
	return t.expiry(n).Add(-expirySlack - n.NotAfter.Sub(n.NotBefore)/lastShare)
}

// expiry is when, by the machine's clock, a node's certificate is no longer
// good.
func (t *Table) expiry(n *cert.Node) time.Time {
	return time.Now().Add(n.NotAfter.Sub(t.cfg.Clock.Now()) + expirySlack)
}
