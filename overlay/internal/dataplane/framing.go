package dataplane

// Framing says how much longer than its packet a plane's message is.
type Framing struct {
	Overhead int // header and tag, in bytes
	// A packet is padded to a multiple of Unit, a power of two, of at least 1,
	// but a last part of a packet not beyond MTU, if that is not 0.
	Unit, MTU int
}

// padded is the length to which a packet is padded.
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

// limit is the longest packet whose message is not longer than longest.
func (f *Framing) limit(longest int) int {
	content := longest - f.Overhead
	if f.MTU <= 0 {
		return content &^ (f.Unit - 1)
	}
	return content/f.MTU*f.MTU + content%f.MTU&^(f.Unit-1)
}
