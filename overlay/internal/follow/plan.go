package follow

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"weft/overlay/api"
	"weft/overlay/internal/network"
)

const (
	jitterDirectory = 300 * time.Millisecond
	jitterConfig    = 2 * time.Second
	pushTime        = time.Second     // for a pushed revocation list to arrive
	nudgeSpacing    = 2 * time.Second // least time between fetches because of nudges
	maxSpread       = 10 * time.Minute
	renewSpacing    = time.Second
)

// wanted holds reported current versions.
type wanted struct {
	api.Versions
	spread time.Duration // over which the server wants the nodes to fetch
	nudged bool
	renew  bool
	// changes is the change of the directory in the nudge, if its sender is trusted.
	changes *api.Changes
}

// moment is the input of a plan: what the node has, and the time.
type moment struct {
	*network.Network
	held      api.Versions
	now, weft time.Time
}

// plan decides what to ask the server, and when. It has the reported versions and the
// state of each part. Its methods are pure, except that the time of a fetch after a nudge
// is random.
type plan struct {
	target  wanted
	steps   [parts]step
	due     time.Time          // when to fetch because of a nudge
	last    map[bool]time.Time // when something was last requested; key: because of a nudge
	renewed time.Time          // weft time of the last renewal in this run
	omitted uint64             // number of the list because of which the certificate was last requested
}

// question is a part to request: the wanted version, and the ETag of the content that was
// last refused.
type question struct {
	part      part
	word, tag string
}

func newPlan(held api.Versions) plan {
	return plan{target: wanted{Versions: held}, last: map[bool]time.Time{}}
}

// complete fills in what a report leaves out from earlier reports.
func (l *plan) complete(w wanted) wanted {
	if w.Config.IsZero() { // the relay does not know
		w.Config, w.Directory = l.target.Config, l.target.Directory
	}
	if w.CRL == 0 {
		w.CRL = l.target.CRL
	}
	w.renew = w.renew || l.target.renew
	return w
}

// hear takes a completed report of current versions. waited says that something was
// wanted before, so that its time does not change.
func (l *plan) hear(m moment, w wanted, waited bool) {
	w.changes = nil
	l.target = w
	soonest := l.last[w.nudged].Add(nudgeSpacing)
	if w.nudged {
		soonest = later(soonest, m.now.Add(jitterOf(m, w)))
	}
	if !waited || !l.due.After(m.now) {
		l.due = soonest
	}
	for p := range parts { // the relay has received it from the server, which is therefore reachable
		if st := &l.steps[p]; st.retry.After(soonest) {
			st.retry = soonest
		}
	}
}

// next returns what to request now, which counts as in progress from then on; which parts
// have become current otherwise; and after how long to call next again if nothing happens
// before.
func (l *plan) next(m moment) (ask []question, well []part, wait time.Duration) {
	var next time.Time
	for p := range parts {
		st := &l.steps[p]
		word, have, from := l.wants(m, p)
		if st.outdated(have) || p == partDirectory && !m.ReadsDirectory() {
			*st = step{busy: st.busy}
			well = append(well, p)
		}
		if st.refused == "" && !st.since.IsZero() && (word == "" || from.After(m.now)) { // it came from elsewhere
			st.since, st.reason, st.alone = time.Time{}, "", false
			well = append(well, p)
		}
		at, ok := st.ready(word)
		if word == "" || !ok {
			continue
		}
		if at = latest(at, from, l.due); at.After(m.now) {
			next = soonest(next, at)
			continue
		}
		st.busy = true
		l.last[l.target.nudged] = m.now
		ask = append(ask, question{p, word, st.tag})
	}
	if next.IsZero() {
		return ask, well, math.MaxInt64
	}
	return ask, well, next.Sub(m.now)
}

// wants returns the wanted version of a part, "" if none, the version that the node has,
// and from when it is due if that depends on time only.
func (l *plan) wants(m moment, p part) (word, have string, from time.Time) {
	switch p {
	case partList:
		if have = fmt.Sprint(m.held.CRL); l.target.CRL > m.held.CRL {
			word = fmt.Sprint(l.target.CRL)
		}
	case partConfig:
		if have = m.held.Config.String(); l.target.Config != m.held.Config {
			word = l.target.Config.String()
		}
	case partDirectory:
		if have = m.held.Directory.String(); m.ReadsDirectory() && l.target.Directory != m.held.Directory {
			word = l.target.Directory.String()
		}
	case partCertificate:
		have = m.Self.Serial.String()
		word = "after " + have
		if !l.target.renew {
			from = m.now.Add(max(l.renewIn(m), 0))
		}
	}
	return word, have, from
}

// waiting reports whether something is wanted and was not requested yet.
func (l *plan) waiting(m moment) bool {
	for p := range parts {
		word, _, from := l.wants(m, p)
		if _, ok := l.steps[p].ready(word); ok && word != "" && !from.After(m.now) {
			return true
		}
	}
	return false
}

// busy reports whether any request is in progress.
func (l *plan) busy() bool {
	for p := range parts {
		if l.steps[p].busy {
			return true
		}
	}
	return false
}

// lets reports whether the node has everything that decides who may come in, as far as it
// was reported and can be used.
func (l *plan) lets(m moment) bool {
	for _, p := range []part{partList, partConfig} {
		if word, _, _ := l.wants(m, p); word != "" && word != l.steps[p].refused {
			return false
		}
	}
	return true
}

// forget drops the announced version of a part if it is word, which was requested: the
// server does not have it. It may be announced again.
func (l *plan) forget(held api.Versions, p part, word string) {
	t := &l.target
	switch p {
	case partList:
		if fmt.Sprint(t.CRL) == word {
			t.CRL = held.CRL
		}
	case partConfig:
		if t.Config.String() == word {
			t.Config = held.Config
		}
	case partDirectory:
		if t.Directory.String() == word {
			t.Directory = held.Directory
		}
	case partCertificate:
		t.renew = false
	}
}

// mayFit makes refused versions be requested once more, because what they were checked
// against has changed.
func (l *plan) mayFit(others ...part) {
	for _, p := range others {
		l.steps[p].refused = ""
	}
}

// renewIn returns how long until the certificate must be renewed. A certificate that
// would be due at once, because its life is short or the server is hostile, is not
// renewed endlessly: its life is counted from when it was received.
func (l *plan) renewIn(m moment) time.Duration {
	percent := m.Config.RenewAfter
	if percent <= 0 || percent >= 100 {
		percent = 66
	}
	share := func(from time.Time) time.Time {
		return from.Add(m.Self.NotAfter.Sub(from) * time.Duration(percent) / 100)
	}
	due := share(m.Self.NotBefore)
	if !l.renewed.IsZero() {
		due = later(due, later(share(l.renewed), l.renewed.Add(renewSpacing)))
	}
	if m.CRL.Omits(m.Self.NotAfter) && m.CRL.Number != l.omitted {
		return 0 // no node with this list accepts the certificate, whatever the time is
	}
	return due.Sub(m.weft)
}

// jitterOf spreads the fetches of many nodes that were nudged at once. When only the
// revocation list is new, the relay will push it, at 500 nodes a second and first to
// those that know the revoked device: only nodes that get no push need to fetch.
func jitterOf(m moment, w wanted) time.Duration {
	span, least := jitterDirectory, time.Duration(0)
	spread := min(w.spread, maxSpread)
	switch {
	case w.Config != m.Config.Version:
		span = jitterConfig
	case !m.ReadsDirectory() || w.Directory == m.held.Directory:
		span, least = pushTime, pushTime
		spread *= 2
	}
	return least + rand.N(max(span, spread))
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// soonest returns the earlier of two times; zero means never.
func soonest(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

func latest(ts ...time.Time) time.Time { return slices.MaxFunc(ts, time.Time.Compare) }
