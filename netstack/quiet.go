package netstack

import (
	"time"

	"gvisor.dev/gvisor/pkg/log"
)

// gVisor has one logger for the whole process. It writes to standard error in a format
// of its own, for example when a connection is aborted, which any peer can cause. A
// daemon's log is for its owner and for programs that parse it, so gVisor's lines are
// dropped.
func init() { log.SetTarget(discard{}) }

type discard struct{}

func (discard) Emit(int, log.Level, time.Time, string, ...any) {}
