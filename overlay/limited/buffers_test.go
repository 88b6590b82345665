package limited

import (
	"sync"
	"testing"
)

// Many copies at the same time share a bound, and none waits for another.
func TestBuffers(t *testing.T) {
	p := buffers{
		large: sync.Pool{New: func() any { return new([LargeBuffer]byte) }},
		small: sync.Pool{New: func() any { return new([SmallBuffer]byte) }},
	}
	p.most.Store(10 * LargeBuffer)
	var got [][]byte
	sum := 0
	for range 100 {
		b := p.get()
		sum += len(b)
		got = append(got, b)
	}
	if want := 10*LargeBuffer + 90*SmallBuffer; sum != want {
		t.Errorf("100 buffers take %d bytes, want %d", sum, want)
	}
	for _, b := range got {
		p.put(b[:1])
	}
	if b := p.get(); len(b) != LargeBuffer || p.out.Load() != LargeBuffer {
		t.Errorf("afterwards %d bytes, %d in use", len(b), p.out.Load())
	}
	if n := testing.AllocsPerRun(100, func() { p.put(p.get()) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
