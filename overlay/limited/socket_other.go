//go:build !unix

package limited

import "syscall"

func shrinkSocket(syscall.RawConn) {}
