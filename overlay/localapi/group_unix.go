//go:build unix

package localapi

import (
	"io/fs"
	"strconv"
	"syscall"
)

// groupOf returns the id of a file's group.
func groupOf(fi fs.FileInfo) (string, bool) {
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return "", false
	}
	return strconv.Itoa(int(st.Gid)), true
}
