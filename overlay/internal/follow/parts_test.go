package follow

import (
	"errors"
	"strings"
	"testing"
	"time"
)

// A refused version is not requested again. Another one is, the less often the more it
// has cost, whatever is reported meanwhile.
func TestStepRefusals(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	why := errors.New("too long")
	var st step
	list := make([]byte, 1<<20)
	holds := func(n int, body func(i int) []byte) time.Duration {
		st = step{}
		for i := range n {
			word := string(rune('a' + i))
			at, ok := st.ready(word)
			if !ok {
				t.Fatalf("%d: a version that was not refused is not to be asked for", i)
			}
			now = later(now, at)
			b := body(i)
			st.refuse(now, now, word, "have", "", b, int64(len(b)), why)
			if _, ok := st.ready(word); ok {
				t.Fatalf("%d: a version that was refused is to be asked for again", i)
			}
		}
		at, _ := st.ready("z")
		return at.Sub(now)
	}
	if d := holds(1, func(int) []byte { return list }); d != firstHold {
		t.Errorf("the first time: %v", d)
	}
	// A relay that announces another number each time, with always the same list.
	if d := holds(20, func(int) []byte { return list }); d != maxHold {
		t.Errorf("always the same: %v", d)
	}
	// A list that grows by one each time.
	if d := holds(20, func(i int) []byte { return append([]byte{byte(i)}, list...) }); d != maxCheapHold {
		t.Errorf("always another one: %v", d)
	}
	// A server that announces the length: nothing is read.
	if d := holds(20, func(int) []byte { return nil }); d != maxCheapHold {
		t.Errorf("nothing was read: %v", d)
	}
	if w := st.warning(partList); !strings.Contains(w, "too long") || !strings.Contains(w, "since 2026-01-02T") {
		t.Errorf("the warning: %s", w)
	}
	if st.outdated("have") || !st.outdated("another") {
		t.Error("what mends it")
	}
	st.succeed()
	if at, ok := st.ready("a"); !ok || !at.IsZero() || st.warning(partList) != "" {
		t.Errorf("after a success: %v, %v, %q", at, ok, st.warning(partList))
	}
}

// A request without an answer is repeated after at most a minute. Only costly answers
// delay it further, whatever is reported.
func TestStepFailures(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	why := errors.New("broke off")
	var st step
	for range 20 {
		st.fail(now, now, why, false, 0)
	}
	if at, ok := st.ready("a"); !ok || at.Sub(now) > maxFetchBackoff*5/4 || at.Sub(now) < maxFetchBackoff*3/4 || !st.hold.IsZero() {
		t.Errorf("%v, %v", at.Sub(now), ok)
	}
	if w := st.warning(partConfig); w != "" {
		t.Errorf("a server that does not answer is no fault of one part: %s", w)
	}
	if w := lacking(&[parts]step{partConfig: st}); !strings.Contains(w, "configuration since 2026-01-02T") {
		t.Errorf("what is lacking: %q", w)
	}
	for range 20 {
		st.fail(now, now, why, true, 1<<20)
	}
	if st.hold.Sub(now) != maxHold {
		t.Errorf("a megabyte each time: %v", st.hold.Sub(now))
	}
	st = step{}
	for range 20 {
		st.idle(now, 0)
	}
	if st.hold.Sub(now) != maxCheapHold || st.warning(partList) != "" {
		t.Errorf("nothing new, although it was said: %v, %q", st.hold.Sub(now), st.warning(partList))
	}
}
