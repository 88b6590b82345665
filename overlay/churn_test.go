package overlay_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime"
	"strconv"
	"testing"
	"time"

	"weft/overlay"
)

// Peers that come and go leave no memory behind, neither at a device that they all talk
// to nor at the relay and the server. A round of a peer is a restart with new keys, an
// introduction and a connection; WEFT_CHURN is the number of rounds after those for
// warming up. In a network of 1,000 peers of which 1 % restart each minute, 600 rounds
// are an hour, and an hour may cost 1 MiB.
func TestChurn(t *testing.T) {
	rounds, _ := strconv.Atoi(os.Getenv("WEFT_CHURN"))
	rounds = max(rounds, 50)
	w := newWorld(t)
	pi := w.nodeOf("kitchen-pi", overlay.Config{Log: slog.New(slog.DiscardHandler)}, "device")
	pi.echo()
	var peers []*node
	for i := range 20 {
		peers = append(peers, w.nodeOf(fmt.Sprintf("laptop-%d", i), overlay.Config{Log: slog.New(slog.DiscardHandler)}))
	}
	talk := func(n *node) error {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		c, err := n.Dial(ctx, "tcp", "kitchen-pi:7")
		if err != nil {
			return err
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(20 * time.Second))
		if _, err := io.WriteString(c, "hello"); err != nil {
			return err
		}
		b := make([]byte, 5)
		if _, err := io.ReadFull(c, b); err != nil {
			return err
		}
		// The orderly end: the other end's connection has ended, too.
		if err := c.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
			return err
		}
		if n, err := c.Read(b); err != io.EOF {
			return fmt.Errorf("read at the end: %d bytes, %w", n, err)
		}
		return nil
	}
	begun := map[*node]time.Time{}
	churn := func(n int) {
		for i := range n {
			p := peers[i%len(peers)]
			// A peer may introduce itself four times a second.
			time.Sleep(time.Until(begun[p].Add(300 * time.Millisecond)))
			begun[p] = time.Now()
			p.restart()
			if err := talk(p); err != nil {
				t.Fatalf("round %d of %s: %v", i, p.cfg.Hostname, err)
			}
		}
	}
	churn(2 * len(peers))
	before := held()
	churn(rounds)
	// Wait for what ends with a delay.
	after := held()
	for end := time.Now().Add(30 * time.Second); !after.within(before, rounds) && time.Now().Before(end); after = held() {
		time.Sleep(100 * time.Millisecond)
	}
	t.Logf("before %v, after %d restarts %v", before, rounds, after)
	if !after.within(before, rounds) {
		t.Errorf("wanted: goroutines ±1 %%, files ±5, heap %d bytes more at the most", heapFor(rounds))
	}
	if err := talk(peers[0]); err != nil {
		t.Error(err)
	}
}

// holding is the resources of a process.
type holding struct {
	goroutines, files int
	heap              int64 // bytes in use after a collection
}

func (h holding) String() string {
	return fmt.Sprintf("%d goroutines, %d files, heap %.2f MB", h.goroutines, h.files, float64(h.heap)/1e6)
}

// heapFor returns how many bytes restarts may add to the heap: 1 MiB for 600, plus the
// normal variation of a heap.
func heapFor(rounds int) int64 { return 512<<10 + int64(rounds)<<20/600 }

func (h holding) within(before holding, rounds int) bool {
	d := h.goroutines - before.goroutines
	return 100*max(d, -d) <= before.goroutines && h.files <= before.files+5 && h.heap <= before.heap+heapFor(rounds)
}

func held() holding {
	var m runtime.MemStats
	for range 3 { // the second and third free what finalizers and pools hold
		runtime.GC()
	}
	runtime.ReadMemStats(&m)
	files, _ := os.ReadDir("/proc/self/fd")
	return holding{runtime.NumGoroutine(), len(files), int64(m.HeapAlloc)}
}
