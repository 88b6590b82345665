package follow

import (
	"crypto/sha256"
	"fmt"
	"strings"
	"time"

	"weft/overlay/internal/pause"
	"weft/overlay/status"
)

// A node keeps four parts in step with the server, independently: what is refused, fails
// or takes long in one does not delay the others. This file has the state of each part;
// plan.go decides when to fetch it.
type part int

const (
	partList part = iota // the revocation list
	partCertificate
	partConfig
	partDirectory
	parts
)

// partWords are a part's health code, its name, and the consequence of lacking the
// current one.
var partWords = [parts]struct {
	code        status.Code
	name, means string
}{
	partList:        {status.CodeRevocationList, "the revocation list", "devices that were deleted since then may still be let in"},
	partCertificate: {status.CodeRenewal, "the certificate", "other devices accept it until it expires"},
	partConfig:      {status.CodeConfig, "the configuration", "what the network's owner has changed since then is not in force here yet"},
	partDirectory:   {status.CodeDirectory, "the list of devices", "devices that were added since then may be missing"},
}

const (
	minBackoff      = time.Second
	maxFetchBackoff = time.Minute
	// A useless answer delays the next request, by up to maxHold if it was longer than
	// costly bytes and may come again.
	firstHold    = 2 * time.Second
	maxHold      = time.Hour
	maxCheapHold = 15 * time.Second
	costly       = 16 << 10
)

// step is the state of one part. Its methods are pure: they get the time and do no I/O.
type step struct {
	busy bool // a request is in progress

	// retry is when to ask again after an attempt without an answer. A sign of life of
	// the server may bring it forward.
	retry   time.Time
	backoff time.Duration
	// hold is the same after a useless answer. Nothing brings it forward, because a
	// report of something new may be a lie, and answers may be costly.
	hold    time.Time
	holding time.Duration

	// refused is the announced version whose content could not be used: it is not
	// requested again. held is the version that the node had then, tag the ETag of the
	// content, if any, and sum its hash.
	refused, held, tag string
	sum                [sha256.Size]byte

	since  time.Time // weft time of the first failure in a row; zero if there is none
	reason string    // why the last attempt failed
	alone  bool      // the server was reached: only this part fails
}

// ready reports whether the version word may be requested, and from when.
func (st *step) ready(word string) (at time.Time, ok bool) {
	return later(st.retry, st.hold), !st.busy && (st.refused == "" || st.refused != word)
}

// succeed says that the part is current.
func (st *step) succeed() { *st = step{} }

// idle says that there was nothing new, although a new version was reported.
func (st *step) idle(now time.Time, cost int64) {
	st.retry, st.backoff = time.Time{}, 0
	st.holdOff(now, cost, true)
}

// fail says that the attempt failed without a complete answer, after cost bytes.
func (st *step) fail(now, weftNow time.Time, why error, alone bool, cost int64) {
	st.backoff = pause.Jitter(min(max(2*st.backoff, minBackoff), maxFetchBackoff))
	st.retry = now.Add(st.backoff)
	if cost > costly {
		st.holdOff(now, cost, true)
	}
	st.note(weftNow, why, alone)
}

// refuse says that the content of the version word cannot be used. body is the part of it
// that was received, have the version that the node has.
func (st *step) refuse(now, weftNow time.Time, word, have, tag string, body []byte, cost int64, why error) {
	sum := sha256.Sum256(body)
	same := len(body) == 0 || sum == st.sum
	st.retry, st.backoff = time.Time{}, 0
	st.refused, st.held, st.tag, st.sum = word, have, tag, sum
	st.holdOff(now, cost, same)
	st.note(weftNow, why, true)
}

// holdOff doubles the delay. same says that the next answer may be the same costly one.
func (st *step) holdOff(now time.Time, cost int64, same bool) {
	most := maxCheapHold
	if same && cost > costly {
		most = maxHold
	}
	st.holding = min(max(2*st.holding, firstHold), most)
	st.hold = now.Add(st.holding)
}

func (st *step) note(weftNow time.Time, why error, alone bool) {
	if st.since.IsZero() {
		st.since = weftNow
	}
	st.reason, st.alone = why.Error(), alone || st.alone
}

// outdated reports whether a refusal no longer matters: the node now has another version
// than at the time.
func (st *step) outdated(have string) bool { return st.refused != "" && have != st.held }

// warning returns the text for health about a part, "" for none.
func (st *step) warning(p part) string {
	if st.since.IsZero() || !st.alone {
		return ""
	}
	how := "it cannot be fetched; weft keeps trying"
	if st.refused != "" {
		how = "the server's version cannot be used, and is not fetched again until it changes"
	}
	w := partWords[p]
	return fmt.Sprintf("%s may be out of date since %s: %s (%s); %s", w.name, st.since.UTC().Format(time.RFC3339), how, st.reason, w.means)
}

// lacking lists the parts that are not current and since when, for the warning that the
// server does not answer.
func lacking(steps *[parts]step) string {
	var out []string
	for p := range parts {
		if st := &steps[p]; !st.since.IsZero() {
			out = append(out, partWords[p].name+" since "+st.since.UTC().Format(time.RFC3339))
		}
	}
	return strings.Join(out, ", ")
}
