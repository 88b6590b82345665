package follow

import (
	"crypto/sha256"
	"fmt"
	"strings"
	"time"

	"weft/overlay/internal/pause"
	"weft/overlay/status"
)

// What a node keeps in step with the server has four parts, and each goes its own
// way: what is refused, fails or takes long in one holds none of the others up.
// Here is what is remembered of each, and what follows from it; plan.go says when it is asked for.
type part int

const (
	partList part = iota // of revoked certificates
	partCertificate
	partConfig
	partDirectory
	parts
)

// partWords are a part's health code, its name, and what it means to lack the
// current one.
var partWords = [parts]struct {
	code        status.Code
	name, means string
}{
	partList:        {status.CodeRevocationList, "the revocation list", "devices that were deleted since then may still be let in"},
	partCertificate: {status.CodeRenewal, "the certificate", "other devices believe it until it ends"},
	partConfig:      {status.CodeConfig, "the configuration", "what the network's owner has decided since then does not hold here yet"},
	partDirectory:   {status.CodeDirectory, "the list of devices", "devices that were added since then may be missing"},
}

const (
	minBackoff      = time.Second
	maxFetchBackoff = time.Minute
	// An answer that was of no use holds the next question back: for up to maxHold
	// when it came to more than costly bytes and may be the same again.
	firstHold    = 2 * time.Second
	maxHold      = time.Hour
	maxCheapHold = 15 * time.Second
	costly       = 16 << 10
)

// step is how far one part is. Its methods take the time and do nothing else.
type step struct {
	busy bool // it is being asked for

	// retry is when to ask again after an attempt that failed on its way. News
	// of the server may bring it forward.
	retry   time.Time
	backoff time.Duration
	// hold is the same after an answer that was of no use. Nothing brings it
	// forward: whoever says that there is something new may be lying, and the
	// answer may cost.
	hold    time.Time
	holding time.Duration

	// refused is the announced version whose content could not be used: it is not
	// asked for again. held is what the node had then, tag what the server called
	// the content, if it did, and sum is over it.
	refused, held, tag string
	sum                [sha256.Size]byte

	since  time.Time // weft time of the first of the failures in a row; zero without
	reason string    // of the last failure
	alone  bool      // the server was reached: it is this part that fails
}

// ready reports whether the version word may be asked for, and from when.
func (st *step) ready(word string) (at time.Time, ok bool) {
	return later(st.retry, st.hold), !st.busy && (st.refused == "" || st.refused != word)
}

// succeed: it is current.
func (st *step) succeed() { *st = step{} }

// idle: nothing was new, although somebody said so.
func (st *step) idle(now time.Time, cost int64) {
	st.retry, st.backoff = time.Time{}, 0
	st.holdOff(now, cost, true)
}

// fail: the attempt ended on its way, after cost bytes.
func (st *step) fail(now, weftNow time.Time, why error, alone bool, cost int64) {
	st.backoff = pause.Jitter(min(max(2*st.backoff, minBackoff), maxFetchBackoff))
	st.retry = now.Add(st.backoff)
	if cost > costly {
		st.holdOff(now, cost, true)
	}
	st.note(weftNow, why, alone)
}

// refuse: what came as the version word is not usable. body is of it what came,
// have what the node goes by.
func (st *step) refuse(now, weftNow time.Time, word, have, tag string, body []byte, cost int64, why error) {
	sum := sha256.Sum256(body)
	same := len(body) == 0 || sum == st.sum
	st.retry, st.backoff = time.Time{}, 0
	st.refused, st.held, st.tag, st.sum = word, have, tag, sum
	st.holdOff(now, cost, same)
	st.note(weftNow, why, true)
}

// holdOff waits twice as long as last time. same says that it may be the same
// again that would be paid for.
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

// mended reports whether what was refused does not matter any more: have is
// something else than the node had then.
func (st *step) mended(have string) bool { return st.refused != "" && have != st.held }

// warning is what health says about a part, "" when there is nothing to say.
func (st *step) warning(p part) string {
	if st.since.IsZero() || !st.alone {
		return ""
	}
	how := "it cannot be fetched, and is tried again"
	if st.refused != "" {
		how = "what the server has is not usable, and is not fetched again until it changes"
	}
	w := partWords[p]
	return fmt.Sprintf("%s is not known to be current since %s: %s (%s); %s", w.name, st.since.UTC().Format(time.RFC3339), how, st.reason, w.means)
}

// lacking lists what is not current and since when, for a server that does not
// answer.
func lacking(steps *[parts]step) string {
	var out []string
	for p := range parts {
		if st := &steps[p]; !st.since.IsZero() {
			out = append(out, partWords[p].name+" since "+st.since.UTC().Format(time.RFC3339))
		}
	}
	return strings.Join(out, ", ")
}
