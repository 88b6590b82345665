package tun

import (
	"context"
	"errors"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"weft/overlay/rtnl"
)

const (
	// settle is how long after a first change further changes are collected.
	settle = 100 * time.Millisecond
	// lookEvery is the minimum interval between listings of routes, however many
	// changes there are; a slow listing makes it longer.
	lookEvery = time.Second
)

// watch listens to the kernel's notifications about interfaces, addresses, routes and
// firewall rules. It does not parse them: each one only triggers a check.
func (l *kernelLink) watch(ctx context.Context, changed func()) {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		groups := uint32(1 << (unix.NFNLGRP_NFTABLES - 1))
		keepListening(ctx, unix.NETLINK_NETFILTER, groups, func() {
			l.rulesTouched.Store(true)
			changed()
		})
	})
	groups := uint32(unix.RTMGRP_LINK | unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV4_ROUTE | unix.RTMGRP_IPV6_IFADDR | unix.RTMGRP_IPV6_ROUTE)
	keepListening(ctx, unix.NETLINK_ROUTE, groups, changed)
}

// keepListening listens again after errors; without the permission to listen it checks
// periodically.
func keepListening(ctx context.Context, family int, groups uint32, changed func()) {
	for again := 10 * time.Second; ctx.Err() == nil; again = min(2*again, 10*time.Minute) {
		if err := listen(ctx, family, groups, changed); err != nil {
			if !pause(ctx, again) {
				return
			}
			changed()
		}
	}
}

func listen(ctx context.Context, family int, groups uint32, changed func()) error {
	f, err := rtnl.Subscribe(family, groups)
	if err != nil {
		return err
	}
	defer f.Close()
	stop := context.AfterFunc(ctx, func() { f.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	buf := make([]byte, 32<<10)
	for {
		// A buffer overflow (ENOBUFS) also means that there were notifications.
		if _, err := f.Read(buf); err != nil && !errors.Is(err, unix.ENOBUFS) {
			return err
		}
		if !pause(ctx, settle) {
			return nil
		}
		for drained := false; !drained; {
			f.SetReadDeadline(time.Now().Add(time.Millisecond))
			_, err := f.Read(buf)
			drained = err != nil && !errors.Is(err, unix.ENOBUFS)
		}
		f.SetReadDeadline(time.Time{})
		start := time.Now()
		changed()
		// Check after the deadline was removed: ctx may have ended in between.
		if !pause(ctx, max(lookEvery, 20*time.Since(start))) {
			return nil
		}
	}
}
