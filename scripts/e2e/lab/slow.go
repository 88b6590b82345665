//go:build e2e

package lab

import (
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// SlowUplink sends all outgoing packets of the house through a modem with a rate in
// bits per second and a queue that holds what it sends in the given time. Packets that
// find the queue full are lost. Incoming packets are not slowed down. The house is
// reachable from outside at TCP port 8443 of its router.
//
// The returned func says how long a packet sent now would wait.
//
// Not every kernel can do this, so the modem is a program: the router routes packets
// from the house into a TUN interface, and packets that come back from there to the
// internet.
func (h *Home) SlowUplink(bitsPerSecond int, holds time.Duration) (queued func() time.Duration) {
	h.lab.Helper()
	r := h.Router
	var fd int
	var err error
	r.Do(func() { fd, err = openTUN("modem") })
	if err != nil {
		h.lab.Fatalf("make a modem in %s: %v", r.Name, err)
	}
	tun := os.NewFile(uintptr(fd), "modem") // nonblocking, so that Close ends pending reads
	r.IP("link set modem mtu 1500 txqueuelen 1000 up", "route add default dev modem table 100", "rule add iif lan lookup 100")
	r.Sysctl("ipv4/conf/all/rp_filter", "0")
	r.Sysctl("ipv4/conf/modem/rp_filter", "0")
	// Packets are tracked, and their addresses translated, when they leave the modem,
	// not when they enter it.
	r.NFT(`table ip modem {
	chain raw {
		type filter hook prerouting priority raw
		iifname "lan" notrack
	}
	chain nat {
		type nat hook prerouting priority dstnat
		iifname "eth0" tcp dport 8443 dnat to ` + h.Addr + `
	}
}
add rule ip home forward iifname "modem" accept
add rule ip home forward ct status dnat accept
`)
	type packet struct {
		b   []byte
		due time.Time
	}
	queue := make(chan packet, 4096)
	var wg sync.WaitGroup
	var full atomic.Int64 // until when it has packets to send, since begun
	begun := time.Now()
	wg.Go(func() {
		defer close(queue)
		busy := begun
		buf := make([]byte, 1<<16)
		for {
			n, err := tun.Read(buf)
			if err != nil {
				return
			}
			now := time.Now()
			if busy.Before(now) {
				busy = now
			}
			if busy.Sub(now) >= holds {
				continue
			}
			busy = busy.Add(time.Duration(n) * 8 * time.Second / time.Duration(bitsPerSecond))
			full.Store(int64(busy.Sub(begun)))
			select {
			case queue <- packet{append([]byte(nil), buf[:n]...), busy}:
			default:
			}
		}
	})
	wg.Go(func() {
		for p := range queue {
			time.Sleep(time.Until(p.due))
			if _, err := tun.Write(p.b); err != nil && errors.Is(err, os.ErrClosed) {
				return
			}
		}
	})
	h.lab.Cleanup(func() {
		tun.Close()
		for range queue { // no more writers
		}
		wg.Wait()
	})
	return func() time.Duration { return max(time.Duration(full.Load())-time.Since(begun), 0) }
}

// openTUN makes a TUN interface in the network of the calling thread.
func openTUN(name string) (int, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	req, err := unix.NewIfreq(name)
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	req.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}
