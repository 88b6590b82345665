//go:build !(linux || darwin || freebsd)

package report

// DiskFree returns -1: the number of free bytes is unknown here.
func DiskFree(string) int64 { return -1 }
