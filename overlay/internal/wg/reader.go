package wg

import (
	"golang.zx2c4.com/wireguard/tun"
)

// reader reads Config.Net in a way that can be interrupted.
type reader interface {
	// read is tun.Device.Read. It returns 0 packets after a wake.
	read(bufs [][]byte, sizes []int, offset int) (int, error)
	// wake ends a read that is blocked, or else the next one.
	wake()
	// wait returns when no goroutine is left, after the device was closed.
	wait()
}

func newReader(dev tun.Device) reader {
	if w, ok := dev.(Waker); ok {
		return direct{dev, w}
	}
	n := dev.BatchSize()
	p := &pump{
		dev:    dev,
		bufs:   make([][]byte, n),
		sizes:  make([]int, n),
		filled: make(chan struct{}),
		again:  make(chan struct{}, 1),
		awake:  make(chan struct{}, 1),
		gone:   make(chan struct{}),
		stop:   make(chan struct{}),
	}
	for i := range p.bufs {
		p.bufs[i] = make([]byte, MaxPacket)
	}
	go p.run()
	return p
}

// direct reads a device that can be woken.
type direct struct {
	dev   tun.Device
	waker Waker
}

func (r direct) read(bufs [][]byte, sizes []int, offset int) (int, error) {
	return r.dev.Read(bufs, sizes, offset)
}
func (r direct) wake() { r.waker.WakeRead() }
func (r direct) wait() {}

// pump reads a device that cannot be woken: a goroutine reads into buffers of
// its own, which costs a copy and a switch of goroutines for each batch.
type pump struct {
	// Constant.
	dev    tun.Device
	filled chan struct{} // a batch is in bufs
	again  chan struct{} // the batch was taken
	awake  chan struct{}
	stop   chan struct{}
	gone   chan struct{}

	// Owned by run until filled, then by read until again.
	bufs  [][]byte
	sizes []int
	n     int
	err   error
}

func (p *pump) run() {
	defer close(p.gone)
	for {
		p.n, p.err = p.dev.Read(p.bufs, p.sizes, 0)
		err := p.err
		select {
		case p.filled <- struct{}{}:
		case <-p.stop:
			return
		}
		select {
		case <-p.again:
		case <-p.stop:
			return
		}
		if err != nil && p.ended(err) {
			return
		}
	}
}

// ended reports whether an error of the device is its last word: wireguard-go
// goes on reading only after ErrTooManySegments.
func (p *pump) ended(err error) bool { return err != tun.ErrTooManySegments }

func (p *pump) read(bufs [][]byte, sizes []int, offset int) (int, error) {
	select {
	case <-p.filled:
	case <-p.awake:
		return 0, nil
	}
	n := min(p.n, len(bufs))
	for i := range n {
		sizes[i] = copy(bufs[i][offset:], p.bufs[i][:p.sizes[i]])
	}
	err := p.err
	p.again <- struct{}{}
	return n, err
}

func (p *pump) wake() {
	select {
	case p.awake <- struct{}{}:
	default:
	}
}

func (p *pump) wait() {
	close(p.stop)
	<-p.gone
}
