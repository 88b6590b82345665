//go:build unix

package limited

import "syscall"

// ToFiles bounds a number of connections by the process's file descriptors. One kind of
// connection gets at most a third: with none left, the process could not reach its
// server either.
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
