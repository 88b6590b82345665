package rtnl

import (
	"net/netip"
	"os"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestWatch: it reports an address that is added and one that is removed, and nothing
// after stop.
func TestWatch(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs a network namespace")
	}
	runtime.LockOSThread() // not unlocked: the thread ends with the test
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Skip(err)
	}
	c, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	lo, err := c.InterfaceByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	told := make(chan struct{}, 100)
	stop, err := Watch(unix.RTMGRP_IPV4_IFADDR, func() { told <- struct{}{} })
	if err != nil {
		t.Fatal(err)
	}
	wait := func(what string) {
		select {
		case <-told:
		case <-time.After(10 * time.Second):
			t.Fatalf("not told of %s", what)
		}
	}
	ip := netip.MustParseAddr("127.0.0.77")
	if err := c.AddAddr(lo.Index, ip); err != nil {
		t.Fatal(err)
	}
	wait("a new address")
	if err := c.DelAddr(lo.Index, Addr{ip, ip, 32}); err != nil {
		t.Fatal(err)
	}
	wait("its end")
	stop()
	if err := c.AddAddr(lo.Index, ip); err != nil {
		t.Fatal(err)
	}
	if len(told) != 0 {
		t.Error("told after stop")
	}
}
