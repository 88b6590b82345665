package status

import (
	"fmt"
	"slices"
	"sync"
	"testing"
)

func TestWarnings(t *testing.T) {
	type is = []Health
	name := func(i int) Code { return CodeIdentityChanged.Of(fmt.Sprintf("%02d", i)) }
	var everyName is
	for i := range maxWarnings {
		everyName = append(everyName, Health{CodeIdentityChanged, "new", fmt.Sprintf("%02d", i)})
	}
	for _, c := range []struct {
		name string
		do   func(w *Warnings)
		want []Health
	}{
		{"none", func(*Warnings) {}, is{}},
		{"set", func(w *Warnings) { w.Set(CodeClock, "off") }, is{{Code: CodeClock, Message: "off"}}},
		{"set again", func(w *Warnings) { w.Set(CodeClock, "off"); w.Set(CodeClock, "more") }, is{{Code: CodeClock, Message: "more"}}},
		{"cleared", func(w *Warnings) { w.Set(CodeClock, "off"); w.Clear(CodeClock); w.Clear(CodeVersion) }, is{}},
		{"in order, one for each port", func(w *Warnings) {
			w.Set(CodeInboundPortTaken.Of("80"), "b")
			w.Set(CodeClock, "c")
			w.Set(CodeInboundPortTaken.Of("22"), "a")
		}, is{{CodeClock, "c", ""}, {CodeInboundPortTaken, "a", "22"}, {CodeInboundPortTaken, "b", "80"}}},
		{"one of two cleared", func(w *Warnings) {
			w.Set(CodeInboundPortTaken.Of("80"), "b")
			w.Set(CodeInboundPortTaken.Of("22"), "a")
			w.Clear(CodeInboundPortTaken.Of("80"))
			w.Clear(CodeInboundPortTaken) // matches none of them
		}, is{{CodeInboundPortTaken, "a", "22"}}},
		{"left: warnings about the machine stay", func(w *Warnings) {
			for code := range meanings {
				if code.Meaning().OfNetwork {
					w.Set(code, "of the network")
				}
			}
			w.Set(name(1), "of the network")
			w.Set(CodeInboundPortTaken.Of("80"), "stays")
			w.Set("of-a-later-version", "stays")
			w.LeaveNetwork()
		}, is{{CodeInboundPortTaken, "stays", "80"}, {"of-a-later-version", "stays", ""}}},
		{"the number is bounded, and existing ones can change", func(w *Warnings) {
			for i := range maxWarnings {
				w.Set(name(i), "old")
			}
			for i := range 10 * maxWarnings {
				w.Set(name(i), "new")
			}
		}, everyName},
	} {
		var w Warnings
		c.do(&w)
		if got := w.List(); !slices.Equal(got, c.want) || got == nil {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

// Each change wakes the waiters, and nothing else does.
func TestWarningsWake(t *testing.T) {
	var w Warnings
	w.Notify() // no waiters
	for _, c := range []struct {
		name string
		do   func()
		wake bool
	}{
		{"set", func() { w.Set(CodeClock, "off") }, true},
		{"has", func() { w.Has(CodeClock); w.List() }, false},
		{"clear of a missing warning", func() { w.Clear(CodeVersion) }, false},
		{"clear", func() { w.Clear(CodeClock) }, true},
		{"left", w.LeaveNetwork, true},
		{"notify", w.Notify, true},
	} {
		one, other := w.Changed(), w.Changed()
		c.do()
		for _, ch := range []<-chan struct{}{one, other} {
			select {
			case <-ch:
				if !c.wake {
					t.Errorf("%s: woken", c.name)
				}
			default:
				if c.wake {
					t.Errorf("%s: not woken", c.name)
				}
			}
		}
	}
}

// A change between the call of Changed and the check of the state is not missed.
func TestWarningsWait(t *testing.T) {
	var w Warnings
	var waiting sync.WaitGroup
	for range 8 {
		waiting.Go(func() {
			for {
				changed := w.Changed()
				if w.Has(CodeRevoked) {
					return
				}
				<-changed
			}
		})
	}
	for i := range 100 {
		w.Set(CodeClock, fmt.Sprint(i))
		w.Clear(CodeClock)
	}
	w.Set(CodeRevoked, "removed")
	waiting.Wait()
}
