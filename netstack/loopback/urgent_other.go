//go:build !unix

package loopback

import "syscall"

// Inline does nothing here: TCP's urgent byte is lost.
func Inline(syscall.RawConn) error { return nil }
