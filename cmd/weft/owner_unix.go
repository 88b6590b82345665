//go:build unix

package main

import (
	"os"
	"syscall"
)

// ownFile reports whether the file at path belongs to this user.
func ownFile(path string) bool {
	fi, err := os.Stat(path)
	if err != nil {
		return false
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	return ok && int(st.Uid) == os.Getuid()
}
