//go:build !unix

package link

import (
	"errors"
	"syscall"
)

// On other systems the stream is read through net.Conn.
func (c *Conn) initRaw(syscall.Conn) {}

func (c *Conn) fill() error { return errors.ErrUnsupported }

// abandoned reports false: these systems cannot tell.
func (c *Conn) abandoned() bool { return false }
