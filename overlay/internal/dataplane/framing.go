package dataplane

// Framing says how much longer a plane's message is than its packet.
type Framing struct {
	Overhead int // header and tag, in bytes
	// A packet is padded to a multiple of Unit, which is a power of two and at least 1.
	// If MTU is not 0, the last part of a packet is not padded beyond MTU.
	Unit, MTU int
}

// padded returns the length of a packet after padding.
func (f *Framing) padded(size int) int {
	last := size
	if f.MTU > 0 && last > f.MTU {
		last %= f.MTU
	}
	pad := (last + f.Unit - 1) &^ (f.Unit - 1)
	if f.MTU > 0 && pad > f.MTU {
		pad = f.MTU
	}
	return size + pad - last
}

// limit returns the longest packet whose message is not longer than longest.
func (f *Framing) limit(longest int) int {
	content := longest - f.Overhead
	if f.MTU <= 0 {
		return content &^ (f.Unit - 1)
	}
	return content/f.MTU*f.MTU + content%f.MTU&^(f.Unit-1)
}
