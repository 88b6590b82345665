//go:build unix

package limited

import "syscall"

// ToFiles bounds connections by the file descriptors that the process may have. Using
// them up would also cut it off from its server: at most a third of them are for one
// kind of connection.
func ToFiles(max int) int {
	var lim syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &lim); err != nil {
		return max
	}
	if third := lim.Cur / 3; third > 0 && uint64(third) < uint64(max) {
		return int(third)
	}
	return max
}
