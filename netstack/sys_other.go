//go:build !linux

package netstack

import "syscall"

func bindWithoutPort(string, string, syscall.RawConn) error { return nil }
