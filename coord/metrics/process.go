package metrics

import (
	"runtime"
	"runtime/metrics"
	"time"
)

// started is about when the process did.
var started = time.Now()

// ofRuntime are those of the runtime's own metrics that are passed on, by the names that
// Prometheus' library for Go gave them.
var ofRuntime = []struct {
	name string
	kind kind
	help string
	from string
}{
	{"go_goroutines", gauge, "Goroutines that exist.", "/sched/goroutines:goroutines"},
	{"go_memstats_heap_alloc_bytes", gauge, "Bytes of objects on the heap.", "/memory/classes/heap/objects:bytes"},
	{"go_memstats_sys_bytes", gauge, "Bytes of memory got from the system.", "/memory/classes/total:bytes"},
	{"go_memstats_heap_released_bytes", gauge, "Bytes of memory given back to the system.", "/memory/classes/heap/released:bytes"},
	{"go_memstats_alloc_bytes_total", counter, "Bytes of all objects that were made.", "/gc/heap/allocs:bytes"},
	{"go_gc_cycles_total_gc_cycles_total", counter, "Garbage collections.", "/gc/cycles/total:gc-cycles"},
	{"go_sched_gomaxprocs_threads", gauge, "Threads that run Go code at a time, at most.", "/sched/gomaxprocs:threads"},
}

// process is what the process uses.
func process(t *text) {
	t.head("go_info", gauge, "Always 1; the version of Go.")
	t.value("go_info", 1, "version", runtime.Version())
	samples := make([]metrics.Sample, len(ofRuntime))
	for i, m := range ofRuntime {
		samples[i].Name = m.from
	}
	metrics.Read(samples)
	for i, m := range ofRuntime {
		if samples[i].Value.Kind() != metrics.KindUint64 {
			continue // another version of Go
		}
		t.head(m.name, m.kind, m.help)
		t.value(m.name, float64(samples[i].Value.Uint64()))
	}
	t.head("process_start_time_seconds", gauge, "When the process started, since 1970.")
	t.value("process_start_time_seconds", float64(started.UnixMilli())/1000)
	ofSystem(t)
}
