package service

import (
	"context"
	"net"
	"os"
	"strconv"
	"sync"
	"time"
)

// Notify tells systemd (Type=notify) that the daemon is up and then, if the unit
// has a watchdog, at half of its time that it still lives (sd_notify(3)). stop
// says that it is about to end, and waits. Without systemd it does nothing.
func Notify(ctx context.Context) (stop func()) {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return func() {}
	}
	if path[0] == '@' {
		path = "\x00" + path[1:]
	}
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return func() {}
	}
	c.Write([]byte("READY=1"))
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	if every := watchdog(); every > 0 {
		wg.Go(func() {
			t := time.NewTicker(every)
			defer t.Stop()
			for {
				select {
				case <-ctx.Done():
					return
				case <-t.C:
					c.Write([]byte("WATCHDOG=1"))
				}
			}
		})
	}
	return func() {
		cancel()
		wg.Wait()
		c.Write([]byte("STOPPING=1"))
		c.Close()
	}
}

// watchdog is how often to say that the daemon lives, 0 for never.
func watchdog() time.Duration {
	if pid := os.Getenv("WATCHDOG_PID"); pid != "" && pid != strconv.Itoa(os.Getpid()) {
		return 0
	}
	usec, err := strconv.ParseInt(os.Getenv("WATCHDOG_USEC"), 10, 64)
	if err != nil || usec <= 0 {
		return 0
	}
	return time.Duration(usec) * time.Microsecond / 2
}
