package metrics

import (
	"os"
	"strconv"
	"strings"
	"syscall"

	"weft/overlay/promtext"
)

// ofSystem appends what Linux reports about the process. It leaves out what cannot be read.
func ofSystem(t *promtext.Text) {
	one := func(name string, k promtext.Kind, help string, v float64) {
		t.Head(name, k, help)
		t.Value(name, v)
	}
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) == nil {
		one("process_cpu_seconds_total", promtext.Counter, "Seconds of processor time.", float64(u.Utime.Nano()+u.Stime.Nano())/1e9)
	}
	if b, err := os.ReadFile("/proc/self/statm"); err == nil {
		if f := strings.Fields(string(b)); len(f) > 1 {
			size, err1 := strconv.ParseUint(f[0], 10, 64)
			resident, err2 := strconv.ParseUint(f[1], 10, 64)
			if page := uint64(os.Getpagesize()); err1 == nil && err2 == nil {
				one("process_virtual_memory_bytes", promtext.Gauge, "Bytes of virtual memory.", float64(size*page))
				one("process_resident_memory_bytes", promtext.Gauge, "Bytes of memory in use.", float64(resident*page))
			}
		}
	}
	if fds, err := os.ReadDir("/proc/self/fd"); err == nil {
		one("process_open_fds", promtext.Gauge, "Open file descriptors.", float64(len(fds)-1)) // without the one that reads the directory
	}
	var l syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l) == nil {
		one("process_max_fds", promtext.Gauge, "How many can be open.", float64(l.Cur))
	}
}
