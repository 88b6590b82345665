package ops

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"weft/coord/policy"
	"weft/coord/store"
	"weft/overlay/cert"
)

// largePolicy is a policy text of some rules over 350 users and 50 tags: own
// devices, one for all to see, and the rest between users and tags.
func largePolicy(t testing.TB, rules int) string {
	t.Helper()
	p := policy.Policy{Rules: []policy.Rule{
		{From: []string{"user:*"}, To: []string{"self"}, Ports: []string{"*"}},
		{From: []string{"user:u0", "user:u1"}, To: []string{"*"}, Ports: []string{"tcp:22"}},
	}}
	for i := len(p.Rules); i < rules; i++ {
		r := policy.Rule{From: []string{fmt.Sprintf("user:u%d", i), fmt.Sprintf("tag:t%d", i%50)}, To: []string{fmt.Sprintf("tag:t%d", (i+7)%50)}, Ports: []string{"tcp:443", "udp:53"}}
		switch i % 10 {
		case 0:
			r.From = []string{"*"}
		case 1:
			r.To = append(r.To, "self", fmt.Sprintf("user:u%d", i/2))
		}
		p.Rules = append(p.Rules, r)
	}
	text, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// largeNode is the i-th of many devices in 700 classes.
func largeNode(i int, n uint64) store.Node {
	class, tags := i%700, []string(nil)
	if class >= 350 {
		tags = []string{fmt.Sprintf("t%d", class%50), "device"}
	}
	node := store.Node{Class: store.Class(fmt.Sprintf("id%d", class%350), store.JoinTags(tags)), N: n, ConfigN: n, Created: time.Unix(1e9, 0)}
	binary.BigEndian.PutUint64(node.ID[:], uint64(i)+1)
	return node
}

// fill puts devices into an index.
func fill(x *index, devices int) {
	for i := range 350 {
		x.setUser(fmt.Sprintf("id%d", i), fmt.Sprintf("u%d", i), policy.Person{})
	}
	for i := range devices {
		x.put(largeNode(i, x.info().N+1))
	}
}

// BenchmarkSetPolicy puts a policy of 200 rules into force among 700 classes,
// while somebody reads: what it takes in memory and with the database (needed
// at 10,000 devices: 200 ms), and the longest time that a reader waited, which
// is the scheduler's too (needed at 100,000: 5 ms).
func BenchmarkSetPolicy(b *testing.B) {
	for _, devices := range []int{10_000, 100_000} {
		b.Run(fmt.Sprintf("devices=%d", devices), func(b *testing.B) {
			text := largePolicy(b, 200)
			s := openSite(b, func(o *Options) { o.Log = nil })
			fill(s.index, devices)
			var id cert.NodeID
			binary.BigEndian.PutUint64(id[:], 1)
			var waits []time.Duration
			var inMemory, inAll time.Duration
			for b.Loop() {
				text += " " // the same text again would be no change
				var stop atomic.Bool
				waited := make(chan time.Duration)
				go func() {
					var longest time.Duration
					for !stop.Load() {
						start := time.Now()
						s.index.versions(id)
						longest = max(longest, time.Since(start))
					}
					waited <- longest
				}()
				start := time.Now()
				p, err := policy.Parse(text)
				if err != nil {
					b.Fatal(err)
				}
				s.index.setPolicy(p, text, s.index.info().N+1)
				inMemory += time.Since(start)
				stop.Store(true)
				waits = append(waits, <-waited)
				start = time.Now()
				if err := s.SetPolicy(b.Context(), text); err != nil {
					b.Fatal(err)
				}
				inAll += time.Since(start)
			}
			slices.Sort(waits)
			b.ReportMetric(float64(inMemory.Microseconds())/1e3/float64(b.N), "ms-memory")
			b.ReportMetric(float64(inAll.Microseconds())/1e3/float64(b.N), "ms-all")
			b.ReportMetric(float64(waits[len(waits)/2].Microseconds())/1e3, "ms-wait-median")
			b.ReportMetric(float64(waits[len(waits)-1].Microseconds())/1e3, "ms-wait-most")
		})
	}
}

// BenchmarkPut is a device that joins, in a class of its own or not, among 700
// classes and 200 rules.
func BenchmarkPut(b *testing.B) {
	p, err := policy.Parse(largePolicy(b, 200))
	if err != nil {
		b.Fatal(err)
	}
	for _, fresh := range []bool{false, true} {
		b.Run(fmt.Sprintf("new-class=%v", fresh), func(b *testing.B) {
			x := newIndex(store.Network{}, p)
			fill(x, 700)
			i := 700
			for b.Loop() {
				node := largeNode(i, uint64(i))
				if fresh {
					node.Class += fmt.Sprintf(",x%d", i)
				}
				x.put(node)
				i++
			}
		})
	}
}

// BenchmarkIndexMemory is what 100,000 devices in 700 classes weigh under 200
// rules, and what a policy that lets all see all adds.
func BenchmarkIndexMemory(b *testing.B) {
	heap := func() float64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return float64(m.HeapAlloc) / 1e6
	}
	p, err := policy.Parse(largePolicy(b, 200))
	if err != nil {
		b.Fatal(err)
	}
	all, err := policy.Parse(`{"rules":[{"from":["*"],"to":["*"],"ports":["*"]}]}`)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		before := heap()
		x := newIndex(store.Network{}, p)
		fill(x, 100_000)
		b.ReportMetric(heap()-before, "MB")
		x.setPolicy(all, "", x.info().N+1)
		b.ReportMetric(heap()-before, "MB-all-see-all")
		runtime.KeepAlive(x)
	}
}
