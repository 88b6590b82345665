package overlay_test

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"runtime"
	"runtime/pprof"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestMain lets more tests run at once than there are cores: most of them wait,
// and waiting costs no core. At the end nothing may be left of any of them.
func TestMain(m *testing.M) {
	flag.Parse()
	if f := flag.Lookup("test.parallel"); f.Value.String() == f.DefValue {
		f.Value.Set("8")
	}
	before := runtime.NumGoroutine()
	code := m.Run()
	var left string
	gone := within(5*time.Second, func() bool {
		left = goroutines("")
		return runtime.NumGoroutine() <= before
	})
	if !gone {
		fmt.Fprintf(os.Stderr, "FAIL: %d goroutines at the end, %d before the tests:\n%s", runtime.NumGoroutine(), before, left)
		code = max(code, 1)
	}
	os.Exit(code)
}

// leakers are the tests that checkLeaks has been called for.
var leakers sync.Map

// leakLabel is on every goroutine that a test started, or that one of those did:
// so each test is told from those that run beside it. What a timer starts has no
// label; TestMain finds it.
const leakLabel = "leaks of"

// checkLeaks fails at the very end of the test unless everything that it starts from
// now on is gone.
func checkLeaks(t *testing.T) {
	if _, yes := leakers.LoadOrStore(t, true); yes {
		return
	}
	label := fmt.Sprintf("%s %p", t.Name(), t)
	pprof.SetGoroutineLabels(pprof.WithLabels(context.Background(), pprof.Labels(leakLabel, label)))
	t.Cleanup(func() {
		leakers.Delete(t)
		pprof.SetGoroutineLabels(context.Background())
		var left string
		if !within(5*time.Second, func() bool { left = goroutines(label); return left == "" }) {
			t.Errorf("left of the test:\n%s", left)
		}
	})
}

// within reports whether ok becomes true within a time.
func within(limit time.Duration, ok func() bool) bool {
	for end := time.Now().Add(limit); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			return false
		}
	}
	return true
}

// goroutines returns where those with a label are, or all of them.
func goroutines(label string) string {
	var b bytes.Buffer
	pprof.Lookup("goroutine").WriteTo(&b, 1)
	var found []string
	for _, stack := range strings.Split(b.String(), "\n\n") {
		if strings.Contains(stack, fmt.Sprintf("%q:%q", leakLabel, label)) || label == "" {
			found = append(found, stack)
		}
	}
	return strings.Join(found, "\n\n")
}
