package rtnl

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// open returns a netlink socket that receives announcements to groups, 0 for none.
func open(flags, family int, groups uint32) (fd int, err error) {
	fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|flags, family)
	if err != nil {
		return -1, os.NewSyscallError("open netlink: socket", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups}); err != nil {
		unix.Close(fd)
		return -1, os.NewSyscallError("open netlink: bind", err)
	}
	return fd, nil
}

// Subscribe opens a socket to read what the kernel announces to groups of a family:
// unix.NETLINK_ROUTE and unix.RTMGRP_…, or unix.NETLINK_NETFILTER. A read fails with
// ENOBUFS when announcements were lost because the buffer was full. Deadlines work.
func Subscribe(family int, groups uint32) (*os.File, error) {
	fd, err := open(unix.SOCK_NONBLOCK, family, groups)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), "netlink"), nil
}

// Watch calls changed, from a goroutine of its own, whenever the kernel announces news to
// groups (unix.RTMGRP_…): what an earlier announcement did not say already. It uses no
// timer. stop ends the goroutine and waits for it; it is never nil.
func Watch(groups uint32, changed func()) (stop func(), err error) {
	f, err := Subscribe(unix.NETLINK_ROUTE, groups)
	if err != nil {
		return func() {}, err
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, 8<<10)
		known := news{}
		for {
			n, err := f.Read(b)
			if err != nil && !errors.Is(err, unix.ENOBUFS) {
				return
			}
			if err != nil || known.changed(b[:n]) {
				changed()
			}
		}
	}()
	return func() { f.Close(); <-done }, nil
}
