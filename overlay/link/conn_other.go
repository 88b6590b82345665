//go:build !unix

package link

import (
	"errors"
	"syscall"
)

// Elsewhere the stream is read through net.Conn.
func (c *Conn) initRaw(syscall.Conn) {}

func (c *Conn) fill() error { return errors.ErrUnsupported }

// abandoned: there is no way to ask.
func (c *Conn) abandoned() bool { return false }
