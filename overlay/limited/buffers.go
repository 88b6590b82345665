package limited

import (
	"math"
	"sync"
	"sync/atomic"
)

// Buffers of loops that copy streams. The large ones in use take at most a sixteenth of
// the memory; beyond that a loop gets a small one and is slower. No loop waits for a
// buffer, since another loop may hold one for any time.
const (
	LargeBuffer = 64 << 10
	SmallBuffer = 8 << 10
)

type buffers struct {
	most         atomic.Int64 // bound on out, in bytes; 0: not set yet
	out          atomic.Int64 // bytes of large buffers in use
	large, small sync.Pool
}

var pool = buffers{
	large: sync.Pool{New: func() any { return new([LargeBuffer]byte) }},
	small: sync.Pool{New: func() any { return new([SmallBuffer]byte) }},
}

// GetBuffer returns a buffer of LargeBuffer bytes, or one of SmallBuffer if many are in
// use. PutBuffer returns it to the pool, after which it must not be used.
func GetBuffer() []byte { return pool.get() }

// PutBuffer takes back a buffer of GetBuffer.
func PutBuffer(b []byte) { pool.put(b) }

func (p *buffers) get() []byte {
	most := p.most.Load()
	if most == 0 {
		most = int64(Share(math.MaxInt, 1./16))
		p.most.Store(most)
	}
	if p.out.Add(LargeBuffer) > most {
		p.out.Add(-LargeBuffer)
		return p.small.Get().(*[SmallBuffer]byte)[:]
	}
	return p.large.Get().(*[LargeBuffer]byte)[:]
}

func (p *buffers) put(b []byte) {
	switch cap(b) {
	case LargeBuffer:
		p.out.Add(-LargeBuffer)
		p.large.Put((*[LargeBuffer]byte)(b[:LargeBuffer]))
	case SmallBuffer:
		p.small.Put((*[SmallBuffer]byte)(b[:SmallBuffer]))
	}
}
