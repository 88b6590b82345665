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
	pushTime        = time.Second     // for a pushed revocation list to come
	nudgeSpacing    = 2 * time.Second // at most one nudged fetch in this time
	maxSpread       = 10 * time.Minute
	renewSpacing    = time.Second
)

// wanted is what somebody said is current.
type wanted struct {
	api.Versions
	spread time.Duration // the server's wish to space a large network out
	nudged bool
	renew  bool
	// changes is what came with the nudge, if who sent it is believed.
	changes *api.Changes
}

// moment is what a plan is judged by: what the node holds, and when.
type moment struct {
	*network.Network
	held      api.Versions
	now, weft time.Time
}

// plan decides what is asked of the server, and when: it remembers what was said to
// be current and how far each part is. Its methods take the moment and do nothing
// else, but that who was nudged with many others draws when to ask.
type plan struct {
	target  wanted
	steps   [parts]step
	due     time.Time          // of what was nudged for
	last    map[bool]time.Time // by nudged: when something was last asked for
	renewed time.Time          // weft time of the last renewal in this run
	omitted uint64             // number of the list that the certificate was last asked for
}

// question is a part to ask for: the version that is wanted, and what the server
// called the content that was refused last.
type question struct {
	part      part
	word, tag string
}

func newPlan(held api.Versions) plan {
	return plan{target: wanted{Versions: held}, last: map[bool]time.Time{}}
}

// complete adds to what somebody said what was said before.
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

// hear takes somebody's word, completed, for what is current. waited says that
// something was wanted before: it stays due when it was.
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
	for p := range parts { // the relay has heard from the server: no need to be patient
		if st := &l.steps[p]; st.retry.After(soonest) {
			st.retry = soonest
		}
	}
}

// next returns what is to be asked for now, which is under way from then on, which
// parts are well without, and how long until next is to be called again, should
// nothing happen before.
func (l *plan) next(m moment) (ask []question, well []part, wait time.Duration) {
	var next time.Time
	for p := range parts {
		st := &l.steps[p]
		word, have, from := l.wants(m, p)
		if st.mended(have) || p == partDirectory && !m.ReadsDirectory() {
			*st = step{busy: st.busy}
			well = append(well, p)
		}
		if st.refused == "" && !st.since.IsZero() && (word == "" || from.After(m.now)) { // it came another way
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

// wants returns which version of a part is wanted, "" if none, what the node has,
// and, where time alone makes it due, from when.
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

// waiting reports whether something is to be asked for and was not yet.
func (l *plan) waiting(m moment) bool {
	for p := range parts {
		word, _, from := l.wants(m, p)
		if _, ok := l.steps[p].ready(word); ok && word != "" && !from.After(m.now) {
			return true
		}
	}
	return false
}

// busy reports whether anything is under way.
func (l *plan) busy() bool {
	for p := range parts {
		if l.steps[p].busy {
			return true
		}
	}
	return false
}

// lets reports whether the node knows all that says who may come in, as far as
// anybody has told and it can be used.
func (l *plan) lets(m moment) bool {
	for _, p := range []part{partList, partConfig} {
		if word, _, _ := l.wants(m, p); word != "" && word != l.steps[p].refused {
			return false
		}
	}
	return true
}

// forget lets go of what was announced, if it is what was asked for, as word: the
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

// mayFit has what was refused asked for once more: what it was judged by is
// something else now.
func (l *plan) mayFit(others ...part) {
	for _, p := range others {
		l.steps[p].refused = ""
	}
}

// renewIn is how long until the certificate must be renewed. A certificate
// that is due for renewal as soon as it is there, because its life is short or
// the server wants to keep us busy, is not renewed without end: its life is
// counted from when it came.
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
		return 0 // nobody who holds the list believes this certificate, whatever the time is
	}
	return due.Sub(m.weft)
}

// jitterOf spreads the fetches of many nodes that were nudged at once. When only
// the revocation list is new, the relay is about to push it, at 500 nodes a
// second and first to who knows the revoked device: fetching is for those whom
// that does not reach.
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

// soonest returns the earlier of two times, of which zero means never.
func soonest(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

func latest(ts ...time.Time) time.Time { return slices.MaxFunc(ts, time.Time.Compare) }
