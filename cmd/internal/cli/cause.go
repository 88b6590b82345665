package cli

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"syscall"
)

// Cause is what is wrong with a file or a port, without its name, which is said
// beside it.
func Cause(err error) error {
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
	}
	return err
}
