package gcm

import (
	"errors"
	"fmt"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/tun"

	"weft/overlay/internal/bind"
)

// run reads the Forwarder and the Bind, when no other plane does. Like wireguard-go it has
// one goroutine for the Forwarder and one for each receive function.
func (d *Device) run() error {
	receive, _, err := d.bind.Open(0)
	if err != nil {
		return fmt.Errorf("open sockets: %w", err)
	}
	batch := max(d.bind.BatchSize(), d.fwd.Net().BatchSize())
	buffers := func(n int) [][]byte {
		bufs, space := make([][]byte, n), make([]byte, n*bind.MaxMessage)
		for i := range bufs {
			bufs[i] = space[i*bind.MaxMessage : (i+1)*bind.MaxMessage : (i+1)*bind.MaxMessage]
		}
		return bufs
	}
	d.alone.Go(func() {
		bufs, sizes := buffers(batch), make([]int, batch)
		for {
			// What it returns has a peer of no plane.
			if _, err := d.fwd.Read(bufs, sizes, headerLen); err != nil && !errors.Is(err, tun.ErrTooManySegments) {
				return // the Net is closed or broken
			}
		}
	})
	for _, f := range receive {
		d.alone.Go(func() {
			n := d.bind.BatchSize()
			bufs, sizes, from := buffers(n), make([]int, n), make([]conn.Endpoint, n)
			for {
				// What it returns are messages of another plane.
				if _, err := f(bufs, sizes, from); err != nil {
					return
				}
			}
		})
	}
	return nil
}
