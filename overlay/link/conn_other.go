//go:build !unix

package link

import (
	"errors"
	"syscall"
)

// Elsewhere the stream is read through net.Conn.
func (c *Conn) initRaw(syscall.Conn) {}

func (c *Conn) fill() error { return errors.ErrUnsupported }
