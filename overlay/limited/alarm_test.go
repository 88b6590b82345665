package limited

import (
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A bound that is reached is reported at once and then once a minute while it lasts.
// After three minutes without an event the warning is cleared.
func TestAlarm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex // the ticks run in goroutines of their own
		var log strings.Builder
		health := ""
		a := &Alarm{Log: slog.New(slog.NewTextHandler(&lockedWriter{mu: &mu, w: &log}, nil)), Code: "connections",
			Health: func(code, message string) {
				mu.Lock()
				defer mu.Unlock()
				health = code + ":" + message
			},
			Describe: func(n int) string { return fmt.Sprintf("%d refused", n) }}
		lines := func() int { return strings.Count(log.String(), "\n") }
		check := func(wantLines int, wantHealth, when string) {
			t.Helper()
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			if lines() != wantLines || health != wantHealth {
				t.Fatalf("%s: %d lines, want %d; health %q, want %q", when, lines(), wantLines, health, wantHealth)
			}
		}
		a.Raise()
		time.Sleep(time.Second + time.Second/20)
		check(1, "connections:1 refused", "first")
		for range 600 {
			a.Raise()
			time.Sleep(time.Second / 10)
		}
		check(2, "connections:590 refused", "a minute of it")
		time.Sleep(time.Minute)
		check(3, "connections:10 refused", "the rest")
		time.Sleep(2 * time.Minute)
		check(3, "connections:10 refused", "not yet over")
		time.Sleep(time.Minute)
		check(3, "connections:", "over")
		time.Sleep(time.Hour)
		a.Raise()
		time.Sleep(time.Second)
		check(4, "connections:1 refused", "again")
		time.Sleep(time.Hour)
		check(4, "connections:", "over again")
	})
}

// lockedWriter writes to w while it holds mu.
type lockedWriter struct {
	mu *sync.Mutex
	w  io.Writer
}

func (l *lockedWriter) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(b)
}

func TestAlarmAllocates(t *testing.T) {
	a := &Alarm{}
	a.active.Store(true)
	if n := testing.AllocsPerRun(100, a.Raise); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
