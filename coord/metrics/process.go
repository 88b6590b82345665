package metrics

import (
	"runtime"
	"runtime/metrics"
	"time"

	"weft/overlay/promtext"
)

// started is about when the process started.
var started = time.Now()

// ofRuntime are the metrics of Go's runtime that are exported, under the names that the
// Prometheus library for Go uses.
var ofRuntime = []struct {
	name string
	kind promtext.Kind
	help string
	from string
}{
	{"go_goroutines", promtext.Gauge, "Goroutines that exist.", "/sched/goroutines:goroutines"},
	{"go_memstats_heap_alloc_bytes", promtext.Gauge, "Bytes of objects on the heap.", "/memory/classes/heap/objects:bytes"},
	{"go_memstats_sys_bytes", promtext.Gauge, "Bytes of memory got from the system.", "/memory/classes/total:bytes"},
	{"go_memstats_heap_released_bytes", promtext.Gauge, "Bytes of memory given back to the system.", "/memory/classes/heap/released:bytes"},
	{"go_memstats_alloc_bytes_total", promtext.Counter, "Bytes of all objects that were made.", "/gc/heap/allocs:bytes"},
	{"go_gc_cycles_total_gc_cycles_total", promtext.Counter, "Garbage collections.", "/gc/cycles/total:gc-cycles"},
	{"go_sched_gomaxprocs_threads", promtext.Gauge, "Threads that run Go code at a time, at most.", "/sched/gomaxprocs:threads"},
}

// process appends the resources that the process uses.
func process(t *promtext.Text) {
	t.Head("go_info", promtext.Gauge, "Always 1; the version of Go.")
	t.Value("go_info", 1, "version", runtime.Version())
	samples := make([]metrics.Sample, len(ofRuntime))
	for i, m := range ofRuntime {
		samples[i].Name = m.from
	}
	metrics.Read(samples)
	for i, m := range ofRuntime {
		if samples[i].Value.Kind() != metrics.KindUint64 {
			continue // this version of Go does not have it
		}
		t.Head(m.name, m.kind, m.help)
		t.Value(m.name, float64(samples[i].Value.Uint64()))
	}
	t.Head("process_start_time_seconds", promtext.Gauge, "When the process started, since 1970.")
	t.Value("process_start_time_seconds", float64(started.UnixMilli())/1000)
	ofSystem(t)
}
