// Package cause finds what is wrong in the errors of the operating system.
//
// Not for embedders: both programs word their errors with it.
package cause

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"syscall"
)

// Of is what is wrong with a file or a port, without its name, which is said beside it:
// of "open /x: permission denied" and "listen tcp :80: bind: permission denied" it is
// "permission denied". Any other error is returned as it is.
func Of(err error) error {
	var file *fs.PathError
	var link *os.LinkError
	var port *net.OpError
	var errno syscall.Errno
	switch {
	case errors.As(err, &file):
		return file.Err
	case errors.As(err, &link):
		return link.Err
	case errors.As(err, &port) && errors.As(port.Err, &errno):
		return errno
	case errors.As(err, &port):
		return port.Err
	}
	return err
}
