package netstack

import (
	"time"

	"gvisor.dev/gvisor/pkg/log"
)

// gVisor has one logger for the whole process, which writes lines of its own
// format to standard error: that a connection was aborted, as any peer can bring
// about. A daemon's log is its owner's, and what others read by program.
func init() { log.SetTarget(discard{}) }

type discard struct{}

func (discard) Emit(int, log.Level, time.Time, string, ...any) {}
