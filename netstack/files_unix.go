//go:build unix

package netstack

import "syscall"

// limitToFiles keeps peers from using up the process's file descriptors, which
// would also cut it off from its server: at most a third of them for one kind
// of forwarding.
func limitToFiles(max int) int {
	var lim syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &lim); err != nil {
		return max
	}
	if third := lim.Cur / 3; third > 0 && uint64(third) < uint64(max) {
		return int(third)
	}
	return max
}
