package overlay

import (
	"errors"
	"fmt"
	"math"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"weft/overlay/rtnl"
)

// watchMachine calls tell when the kernel reports that an interface, an address or a
// default route has changed (rtnetlink), or that the clock was set, which it also reports
// after a sleep (timerfd with TFD_TIMER_CANCEL_ON_SET). It uses no timer. stop ends it
// and waits; it is never nil.
func watchMachine(tell func()) (stop func(), err error) {
	stopLinks, err := rtnl.Watch(unix.RTMGRP_LINK|unix.RTMGRP_IPV4_IFADDR|unix.RTMGRP_IPV6_IFADDR|unix.RTMGRP_IPV4_ROUTE|unix.RTMGRP_IPV6_ROUTE, tell)
	clock, clockErr := openClock()
	if clockErr != nil {
		return stopLinks, errors.Join(err, clockErr)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		b := make([]byte, 8)
		for {
			if _, err := clock.Read(b); !errors.Is(err, unix.ECANCELED) {
				return
			}
			tell()
			if armClock(clock) != nil {
				return
			}
		}
	})
	return func() { clock.Close(); stopLinks(); wg.Wait() }, err
}

func openClock() (*os.File, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_REALTIME, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("open timerfd: %w", err)
	}
	f := os.NewFile(uintptr(fd), "timerfd")
	if err := armClock(f); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// armClock sets the timer to a time that never comes: only its cancellation counts.
func armClock(f *os.File) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var never unix.ItimerSpec
	never.Value.Sec = math.MaxInt32 // a clock after 2038 only causes a call now and then
	var setErr error
	err = conn.Control(func(fd uintptr) {
		setErr = unix.TimerfdSettime(int(fd), unix.TFD_TIMER_ABSTIME|unix.TFD_TIMER_CANCEL_ON_SET, &never, nil)
	})
	if err == nil && setErr != nil {
		err = fmt.Errorf("set timerfd: %w", setErr)
	}
	return err
}
