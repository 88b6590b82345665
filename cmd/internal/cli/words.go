package cli

import (
	"errors"
	"io/fs"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// Words is an error for a person: in place of what Go's own packages say of files,
// ports, addresses and numbers ("open x: no such file or directory", "dial tcp ...:
// connect: connection refused") stand the thing, where nothing before has named it, and
// what is wrong with it; and at the end the next step, unless the error has one.
func Words(err error) string {
	text := plainly(err.Error(), err)
	if strings.Contains(text, "; ") {
		return text
	}
	if next := remedy(err); next != "" {
		text += "; " + next
	}
	return text
}

// plainly rewrites in text what the errors under err have said there.
func plainly(text string, err error) string {
	thing, cause := "", ""
	switch e := err.(type) {
	case *fs.PathError:
		thing, cause = e.Path, e.Err.Error()
	case *os.LinkError:
		thing, cause = e.New, e.Err.Error()
	case *os.SyscallError:
		cause = e.Err.Error()
	case *net.OpError:
		if e.Addr != nil {
			thing = e.Addr.String()
		}
		cause = plainly(e.Err.Error(), e.Err)
	case *net.DNSError:
		thing, cause = e.Name, "the name is not found"
		if !e.IsNotFound {
			cause = "no resolver tells its address"
		}
	case *net.AddrError:
		thing, cause = e.Addr, e.Err
	case *url.Error:
		thing, cause = e.URL, plainly(e.Err.Error(), e.Err)
	case *strconv.NumError:
		thing, cause = e.Num, "want a number"
	}
	if cause != "" {
		if before, after, ok := strings.Cut(text, err.Error()); ok {
			if thing != "" && !strings.Contains(before, thing) && !strings.HasPrefix(cause, thing) {
				cause = thing + ": " + cause
			}
			text = before + cause + after
		}
	}
	switch e := err.(type) {
	case interface{ Unwrap() error }:
		if under := e.Unwrap(); under != nil {
			text = plainly(text, under)
		}
	case interface{ Unwrap() []error }:
		for _, under := range e.Unwrap() {
			text = plainly(text, under)
		}
	}
	return text
}

// remedy is the next step after a file or a port could not be had, "" where none is
// known.
func remedy(err error) string {
	var dns *net.DNSError
	switch {
	case errors.As(err, &dns):
		return "check the name and this machine's network"
	case errors.Is(err, syscall.EADDRINUSE):
		return "stop what listens there (ss -lntup), or choose another port"
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return "choose an address of this machine: ip address"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "see that something listens there: ss -lnt"
	case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EHOSTUNREACH):
		return "check this machine's network: ip route"
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return "make room (see: df -h), or choose another place"
	case errors.Is(err, syscall.EROFS):
		return "choose a place that can be written to"
	case errors.Is(err, fs.ErrPermission):
		return "run this as the owner, or as root with sudo"
	case errors.Is(err, syscall.EEXIST), errors.Is(err, syscall.EISDIR), errors.Is(err, syscall.ENOTDIR):
		return "choose another name"
	case errors.Is(err, syscall.ENOENT):
		return "check the path"
	}
	return ""
}
