//go:build e2e

// Command benchlab measures the real programs in network namespaces. scripts/bench
// builds it and explains the parts.
//
//	benchlab DIRECTORY-OF-BINARIES PART…
//
// Processor time is user and system time of the named processes, from /proc/PID/stat;
// memory is resident memory; wake-ups are voluntary context switches over all threads.
package main

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	"weft/scripts/e2e/lab"
)

var parts = []struct {
	name string
	run  func(*bench)
}{{"size", size}, {"throughput", throughput}, {"direct", direct}, {"memory", memory}, {"ends", ends}, {"planes", planes}, {"planes-rtt", planesRTT}, {"tun-direct", tunDirect}, {"tun-relay", tunRelay}, {"connect", connect}, {"intro", introductions}, {"idle", idle}, {"dns", resolvers}}

func main() {
	if len(os.Args) > 2 && os.Args[1] == "serve-dns" {
		serveDNS(os.Args[2], os.Args[3])
		return
	}
	if len(os.Args) > 2 && os.Args[1] == "serve-upstream" {
		serveUpstream(os.Args[2])
		return
	}
	if len(os.Args) > 2 && os.Args[1] == "serve-echo" {
		serveEcho(os.Args[2])
		return
	}
	if len(os.Args) < 3 || os.Getuid() != 0 {
		fmt.Fprintln(os.Stderr, "usage (as root): benchlab DIRECTORY-OF-BINARIES PART…; see scripts/bench")
		os.Exit(2)
	}
	lab.Sweep()
	b := &bench{bin: os.Args[1], runs: 5}
	if n, err := strconv.Atoi(os.Getenv("BENCH_RUNS")); err == nil && n > 0 {
		b.runs = n
	}
	for _, p := range parts {
		if slices.Contains(os.Args[2:], p.name) {
			fmt.Printf("\n%-62s %10s  %-22s %s\n", p.name, "median", "(all)", "needed / goal")
			b.part(p.run)
		}
	}
	if b.failed {
		os.Exit(1)
	}
}

// bench is the TB of the lab.
type bench struct {
	bin  string
	runs int

	mu sync.Mutex
	// mu guards the following.
	failed  bool
	cleanup []func()
}

type abort struct{}

// part runs f and cleans up afterwards, even after Fatalf.
func (b *bench) part(f func(*bench)) {
	defer func() {
		for len(b.cleanup) > 0 {
			last := b.cleanup[len(b.cleanup)-1]
			b.cleanup = b.cleanup[:len(b.cleanup)-1]
			last()
		}
		if e := recover(); e != nil {
			if _, ok := e.(abort); !ok {
				panic(e)
			}
		}
	}()
	f(b)
}

func (b *bench) Helper() {}

func (b *bench) Logf(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }

func (b *bench) Errorf(format string, args ...any) {
	b.mu.Lock()
	b.failed = true
	b.mu.Unlock()
	b.Logf(format, args...)
}

func (b *bench) Fatalf(format string, args ...any) { b.Errorf(format, args...); panic(abort{}) }

func (b *bench) Cleanup(f func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.cleanup = append(b.cleanup, f)
}

func (b *bench) Failed() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.failed
}

// row prints one line of the table.
func (b *bench) row(name, unit string, values []float64, held string) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	median := sorted[len(sorted)/2]
	all := ""
	if len(values) > 1 {
		all = fmt.Sprintf("(%s … %s)", short(sorted[0]), short(sorted[len(sorted)-1]))
	}
	fmt.Printf("%-62s %10s  %-22s %s\n", name, short(median)+" "+unit, all, held)
	return median
}

func short(f float64) string {
	switch {
	case f >= 100 || f == float64(int(f)):
		return fmt.Sprintf("%.0f", f)
	case f >= 10:
		return fmt.Sprintf("%.1f", f)
	}
	return fmt.Sprintf("%.2f", f)
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func size(b *bench) {
	for _, f := range []struct{ name, held string }{{"weft", "14 / 12 MB"}, {"weft-server", ""}} {
		fi, err := os.Stat(b.bin + "/" + f.name)
		if err != nil {
			b.Fatalf("%v", err)
		}
		b.row(f.name+", static and stripped (-trimpath -ldflags '-s -w')", "MB", []float64{float64(fi.Size()) / 1e6}, f.held)
	}
}
