package claims

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"weft/overlay/api"
	"weft/overlay/cert"
)

var self = cert.NodeID{1}

func peer(i int) *cert.Node {
	n := &cert.Node{ID: cert.NodeID{2, byte(i >> 8), byte(i)}}
	n.Name, n.User = fmt.Sprint("peer-", i), "alice"
	return n
}

// server takes what a Log carries, as the server does: a row is known by hour, peer,
// direction and First, and counts no less than before.
type server map[string]api.Introduction

// ask lets the Log make a request, after the time between two that carry rows. It returns
// how many rows went with it.
func (s server) ask(t *testing.T, l *Log, answers bool) int {
	t.Helper()
	time.Sleep(spacing)
	value, taken := l.Carry()
	if value == "" {
		return 0
	}
	list, err := api.ParseIntroductions(value)
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range list {
		k := fmt.Sprint(i.First/3600, i.Peer, i.Inbound, i.First)
		if had := s[k]; i.Count >= had.Count {
			s[k] = i
		}
	}
	if answers {
		taken()
	}
	return len(list)
}

func (s server) lines() (lines []string, total int) {
	for _, i := range s {
		way := "out"
		if i.Inbound {
			way = "in"
		}
		lines = append(lines, fmt.Sprintf("%s %s of %s x%d %s", way, i.Name, i.User, i.Count, i.Paths))
		total += i.Count
	}
	slices.Sort(lines)
	return lines, total
}

// What happened arrives once, whether answers are lost or not, and is said no more than
// needed.
func TestLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, s := &Log{Now: time.Now}, server{}
		l.Note(peer(1), true)
		if n := s.ask(t, l, true); n != 0 {
			t.Errorf("%d rows of a log that is off", n)
		}
		l.Set(true, self)
		for range 3 {
			l.Note(peer(1), true)
		}
		l.Used(peer(1).ID, "relay")
		l.Used(peer(1).ID, "direct")
		l.Used(peer(1).ID, "relay")
		l.Used(peer(9).ID, "relay")
		l.Note(peer(2), false)
		if n := s.ask(t, l, false); n != 2 { // the answer is lost
			t.Errorf("%d rows", n)
		}
		l.Note(peer(1), true)
		if n := s.ask(t, l, true); n != 2 {
			t.Errorf("%d rows", n)
		}
		if n := s.ask(t, l, true); n != 0 {
			t.Errorf("%d rows are said again", n)
		}
		l.Note(peer(2), false)
		if n := s.ask(t, l, true); n != 1 {
			t.Errorf("%d rows, one has changed", n)
		}
		want := []string{"in peer-1 of alice x4 direct relay", "out peer-2 of alice x2 "}
		if got, _ := s.lines(); !slices.Equal(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
		// Another hour is another row, and the first is dropped once it is told.
		time.Sleep(time.Hour)
		l.Note(peer(1), true)
		s.ask(t, l, true)
		if got, total := s.lines(); len(got) != 3 || total != 7 {
			t.Errorf("%q", got)
		}
		if len(l.rows) != 1 {
			t.Errorf("%d rows are kept", len(l.rows))
		}
		// Too soon after the last one nothing goes along.
		l.Note(peer(3), true)
		if value, _ := l.Carry(); value != "" {
			t.Error("it carries at once")
		}
		// Off, or another node: forgotten.
		l.Set(true, cert.NodeID{7})
		if n := s.ask(t, l, true); n != 0 {
			t.Errorf("%d rows of another node", n)
		}
		l.Note(peer(3), true)
		l.Set(false, cert.NodeID{7})
		l.Set(true, cert.NodeID{7})
		if n := s.ask(t, l, true); n != 0 {
			t.Errorf("%d rows are left", n)
		}
	})
}

// Whatever comes, memory is bounded, and the sum is right: what finds no room is counted
// together. What was told without an answer may be counted twice then, but never less.
func TestLogIsBounded(t *testing.T) {
	t.Run("every answer arrives", func(t *testing.T) { testBounded(t, false) })
	t.Run("answers are lost", func(t *testing.T) { testBounded(t, true) })
}

func testBounded(t *testing.T, lost bool) {
	synctest.Test(t, func(t *testing.T) {
		l, s := &Log{Now: time.Now}, server{}
		l.Set(true, self)
		noted := 0
		for round := range 5 {
			for i := range 3 * maxRows {
				l.Note(peer(i), i%2 == 0)
				noted++
				if len(l.rows) > maxRows {
					t.Fatalf("%d rows", len(l.rows))
				}
			}
			if round%2 == 0 { // some of it is told
				s.ask(t, l, round == 2 || !lost)
			}
			time.Sleep(7 * time.Minute)
		}
		for tries := 0; s.ask(t, l, true) > 0; tries++ {
			if tries > 100 {
				t.Fatal("it never ends")
			}
		}
		lines, total := s.lines()
		if total < noted || total > noted && !lost {
			t.Errorf("%d arrived of %d:\n%s", total, noted, strings.Join(lines, "\n"))
		}
	})
}

// Many goroutines at once: nothing is counted twice or lost.
func TestLogRace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &Log{Now: time.Now}
		l.Set(true, self)
		var wg sync.WaitGroup
		for i := range 4 {
			wg.Go(func() {
				for range 500 {
					l.Note(peer(i), true)
					l.Used(peer(i).ID, "direct")
				}
			})
			wg.Go(func() {
				for range 50 {
					if _, taken := l.Carry(); taken != nil {
						taken()
					}
					l.Set(true, self)
				}
			})
		}
		wg.Wait()
		total := 0
		for _, r := range l.rows {
			total += r.Count
		}
		if total != 2000 {
			t.Errorf("%d counted of 2000", total)
		}
	})
}
