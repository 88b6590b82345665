package dataplane

import (
	"errors"
	"os"
	"sync"

	"golang.zx2c4.com/wireguard/tun"
)

// Pump adds WakeRead to a device: a goroutine reads the device into buffers of its own,
// which costs a copy and a switch of goroutines for each batch.
type Pump struct {
	tun.Device // constant

	// Constant.
	filled chan struct{} // a batch is in bufs
	again  chan struct{} // the batch was taken
	awake  chan struct{}
	stop   chan struct{}
	gone   chan struct{}
	once   sync.Once

	// Owned by run until filled, then by Read until again.
	bufs  [][]byte
	sizes []int
	n     int
	err   error
}

// NewPump starts to read dev, which the Pump owns from then on. The caller must Close the
// Pump.
func NewPump(dev tun.Device) *Pump {
	n := dev.BatchSize()
	p := &Pump{
		Device: dev,
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

func (p *Pump) run() {
	defer close(p.gone)
	for {
		p.n, p.err = p.Device.Read(p.bufs, p.sizes, 0)
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
		if err != nil && !errors.Is(err, tun.ErrTooManySegments) { // the device is closed or broken
			return
		}
	}
}

// Read implements tun.Device. It returns 0 packets and no error after WakeRead,
// and os.ErrClosed after Close.
func (p *Pump) Read(bufs [][]byte, sizes []int, offset int) (int, error) {
	select {
	case <-p.filled:
	case <-p.awake:
		return 0, nil
	case <-p.gone:
		return 0, os.ErrClosed
	}
	n := min(p.n, len(bufs))
	for i := range n {
		sizes[i] = copy(bufs[i][offset:], p.bufs[i][:p.sizes[i]])
	}
	err := p.err
	p.again <- struct{}{}
	return n, err
}

// WakeRead makes a Read that is blocked, or else the next one, return 0 packets
// at once.
func (p *Pump) WakeRead() {
	select {
	case p.awake <- struct{}{}:
	default:
	}
}

// Close closes the device and waits for the goroutine.
func (p *Pump) Close() error {
	err := p.Device.Close()
	p.once.Do(func() { close(p.stop) })
	<-p.gone
	return err
}
