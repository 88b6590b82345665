//go:build linux || darwin || freebsd

package main

import "golang.org/x/sys/unix"

// diskFree is the number of bytes that can be written in dir, -1 if unknown.
func diskFree(dir string) int64 {
	var st unix.Statfs_t
	if unix.Statfs(dir, &st) != nil {
		return -1
	}
	return int64(st.Bavail) * int64(st.Bsize)
}
