//go:build linux || darwin || freebsd

package report

import "golang.org/x/sys/unix"

// DiskFree returns how many bytes can be written in dir, -1 when unknown.
func DiskFree(dir string) int64 {
	var st unix.Statfs_t
	if unix.Statfs(dir, &st) != nil {
		return -1
	}
	return int64(st.Bavail) * int64(st.Bsize)
}
