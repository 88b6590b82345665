package path

import (
	"testing"
	"time"

	"weft/overlay/internal/probe"
)

// A path behind an uplink that fills up is not given up, however long its answers take in
// the end, and its size is not reduced. A path that is cut is given up, and soon if its
// answers came soon.
func TestFillingUplink(t *testing.T) {
	for name, c := range map[string]struct {
		per  float64       // seconds of delay that each second adds
		full time.Duration // the most
		dead time.Duration // how soon the path is lost when it is cut
	}{
		"nobody uploads":           {0, 0, 700 * time.Millisecond},
		"one that fills slowly":    {0.2, 3 * time.Second, 9 * time.Second},
		"one that fills fast":      {0.6, 3 * time.Second, 9 * time.Second},
		"twice what it can carry":  {0.9, 3 * time.Second, 9 * time.Second},
		"one with a smaller queue": {0.9, 500 * time.Millisecond, 4 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			on := Path{Addr: addr("192.0.2.1:7")}
			b.a.Open(b.now)
			b.a.SetRemote(b.now, remote("192.0.2.1:7"))
			type answer struct {
				at time.Time
				tx probe.Tx
			}
			var way []answer
			uploading, cut := false, false
			delay := 20 * time.Millisecond
			flow := func(d time.Duration) (lost time.Duration) {
				for begun := b.now; b.now.Sub(begun) < d; {
					b.now = b.now.Add(10 * time.Millisecond)
					if uploading {
						delay = min(delay+time.Duration(c.per*float64(10*time.Millisecond)), max(c.full, delay))
					}
					for len(way) > 0 && !way[0].at.After(b.now) {
						b.a.Pong(b.now, on, way[0].tx)
						way = way[1:]
					}
					b.a.Data(b.now, b.now)
					if next := b.a.Next(); !next.After(b.now) {
						b.a.Tick(b.now)
					}
					b.take(func(s Send) {
						if s.Kind == probe.Ping && s.Path == on && !cut {
							way = append(way, answer{b.now.Add(delay), s.Tx})
						}
					})
					if b.a.Selected().Kind != Direct {
						return b.now.Sub(begun)
					}
				}
				return 0
			}
			for range 100 { // until the direct path is found
				flow(10 * time.Millisecond)
			}
			if b.a.Selected().Kind != Direct {
				t.Fatal("no direct path")
			}
			flow(5 * time.Second)
			uploading = true
			if lost := flow(2 * time.Minute); lost != 0 {
				t.Fatalf("given up after %v, %v behind: %v", lost, delay, b.a.Selected().Reason)
			}
			if limit := b.a.Selected().Limit; limit < 1400 {
				t.Errorf("messages of %d bytes are believed to pass", limit)
			}
			cut, way = true, nil
			if lost := flow(time.Minute); lost == 0 || lost > c.dead {
				t.Errorf("lost %v after it was cut, want %v at most", lost, c.dead)
			} else {
				t.Logf("lost %v after it was cut", lost)
			}
		})
	}
}
