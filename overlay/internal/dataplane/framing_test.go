package dataplane

import "testing"

func TestFraming(t *testing.T) {
	for _, f := range []Framing{{Overhead: 32, Unit: 16}, {Overhead: 24, Unit: 1}} {
		for _, f.MTU = range []int{0, 1280, 1420, 9000} {
			for longest := 600; longest < 1600; longest++ {
				limit := f.limit(longest)
				most := 0
				for size := 1; size <= longest; size++ {
					fits := f.padded(size)+f.Overhead <= longest
					if size <= limit && !fits {
						t.Fatalf("%+v: %d bytes do not fit %d", f, size, longest)
					}
					if fits {
						most = size
					}
				}
				if most-limit > f.Unit-1 {
					t.Fatalf("%+v, message of %d: limit %d, but %d would fit", f, longest, limit, most)
				}
			}
		}
	}
	if n := (&Framing{Overhead: 32, Unit: 16, MTU: 1420}).limit(1452); n != 1420 {
		t.Errorf("limit on IPv6 over Ethernet: %d", n)
	}
}
