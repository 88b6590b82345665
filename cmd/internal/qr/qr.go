// Package qr draws short texts, such as addresses, as QR codes (ISO/IEC 18004) for
// terminals. It knows bytes, the lowest error correction, since a screen is not torn, and
// the sizes that that needs; so it is a few kilobytes.
package qr

import (
	"errors"
	"strings"
)

// By version, from 1: codewords for error correction in each block, and blocks.
var (
	correction = [...]int{7, 10, 15, 20, 26, 18, 20, 24, 30, 18, 20, 24, 26}
	blocks     = [...]int{1, 1, 1, 1, 1, 2, 2, 2, 2, 4, 4, 4, 4}
)

// ErrTooLong is for texts of more than 425 bytes.
var ErrTooLong = errors.New("too long for a QR code")

// Code is a QR code without its border.
type Code struct {
	size  int
	dark  []bool // modules, by rows
	fixed []bool // patterns, which are not masked
}

// Dark reports whether the module in column x and row y is dark; those around the code
// are not.
func (c *Code) Dark(x, y int) bool {
	return x >= 0 && y >= 0 && x < c.size && y < c.size && c.dark[y*c.size+x]
}

// Encode makes the QR code of a text.
func Encode(text string) (*Code, error) {
	version := 1
	for ; version <= len(blocks); version++ {
		if 4+lengthBits(version)+8*len(text) <= 8*dataLen(version) {
			return encode(text, version, -1), nil
		}
	}
	return nil, ErrTooLong
}

// encode uses the mask that is best to read, or the given one, 0 to 7.
func encode(text string, version, mask int) *Code {
	c := &Code{size: 17 + 4*version}
	c.dark, c.fixed = make([]bool, c.size*c.size), make([]bool, c.size*c.size)
	c.patterns(version)
	c.fill(interleave(data(text, version), version))
	if mask < 0 {
		best := 0
		for m := range 8 {
			c.mask(m)
			c.format(m)
			if p := c.penalty(); mask < 0 || p < best {
				mask, best = m, p
			}
			c.mask(m) // off again
		}
	}
	c.mask(mask)
	c.format(mask)
	return c
}

func lengthBits(version int) int {
	if version < 10 {
		return 8
	}
	return 16
}

// codewords is how many a version has room for.
func codewords(version int) int {
	n := (16*version+128)*version + 64
	if version >= 2 {
		align := version/7 + 2
		n -= (25*align-10)*align - 55
		if version >= 7 {
			n -= 36
		}
	}
	return n / 8
}

func dataLen(version int) int { return codewords(version) - correction[version-1]*blocks[version-1] }

// data is the text with mode, length and padding.
func data(text string, version int) []byte {
	out := make([]byte, dataLen(version))
	n := 0 // bits
	put := func(v, width int) {
		for i := width - 1; i >= 0; i-- {
			out[n/8] |= byte(v>>i&1) << (7 - n%8)
			n++
		}
	}
	put(4, 4) // bytes
	put(len(text), lengthBits(version))
	for i := range len(text) {
		put(int(text[i]), 8)
	}
	n = min(n+4, 8*len(out)) // end
	for i, pad := (n+7)/8, byte(0xec); i < len(out); i, pad = i+1, pad^0xec^0x11 {
		out[i] = pad
	}
	return out
}

// interleave adds the error correction of each block.
func interleave(data []byte, version int) []byte {
	n, ecc := blocks[version-1], correction[version-1]
	divisor := generator(ecc)
	short, long := len(data)/n, len(data)%n // long blocks have one byte more, and come last
	var parts, checks [][]byte
	for i := range n {
		l := short
		if i >= n-long {
			l++
		}
		parts = append(parts, data[:l])
		checks = append(checks, remainder(data[:l], divisor))
		data = data[l:]
	}
	var out []byte
	for i := range short + 1 {
		for _, p := range parts {
			if i < len(p) {
				out = append(out, p[i])
			}
		}
	}
	for i := range ecc {
		for _, c := range checks {
			out = append(out, c[i])
		}
	}
	return out
}

// times multiplies in GF(2^8) modulo 0x11d.
func times(x, y byte) (z byte) {
	for i := 7; i >= 0; i-- {
		z = z<<1 ^ z>>7*0x1d
		z ^= y >> i & 1 * x
	}
	return z
}

// generator is the Reed-Solomon polynomial of a degree, without its first coefficient.
func generator(degree int) []byte {
	g := make([]byte, degree)
	g[degree-1] = 1
	root := byte(1)
	for range degree {
		for j := range g {
			g[j] = times(g[j], root)
			if j+1 < degree {
				g[j] ^= g[j+1]
			}
		}
		root = times(root, 2)
	}
	return g
}

func remainder(data, divisor []byte) []byte {
	r := make([]byte, len(divisor))
	for _, b := range data {
		f := b ^ r[0]
		copy(r, r[1:])
		r[len(r)-1] = 0
		for i, d := range divisor {
			r[i] ^= times(d, f)
		}
	}
	return r
}

func (c *Code) set(x, y int, dark bool) {
	if x >= 0 && y >= 0 && x < c.size && y < c.size {
		c.dark[y*c.size+x], c.fixed[y*c.size+x] = dark, true
	}
}

// patterns draws what does not depend on the text, and reserves room for the format.
func (c *Code) patterns(version int) {
	for i := range c.size {
		c.set(6, i, i%2 == 0)
		c.set(i, 6, i%2 == 0)
	}
	rings := func(x, y, radius int) {
		for dy := -radius; dy <= radius; dy++ {
			for dx := -radius; dx <= radius; dx++ {
				d := max(dx, -dx, dy, -dy)
				if radius == 2 { // of an alignment pattern
					c.set(x+dx, y+dy, d != 1)
				} else {
					c.set(x+dx, y+dy, d != 2 && d != 4)
				}
			}
		}
	}
	rings(3, 3, 4)
	rings(c.size-4, 3, 4)
	rings(3, c.size-4, 4)
	if version >= 2 {
		at := []int{6}
		n := version/7 + 2
		step := (version*4 + n*2 + 1) / (n*2 - 2) * 2
		for i := n - 2; i >= 0; i-- {
			at = append(at, c.size-7-i*step)
		}
		for i, x := range at {
			for j, y := range at {
				if last := n - 1; !(i == 0 && (j == 0 || j == last) || i == last && j == 0) {
					rings(x, y, 2)
				}
			}
		}
	}
	c.format(0)
	if version >= 7 {
		rest := version
		for range 12 {
			rest = rest<<1 ^ rest>>11*0x1f25
		}
		for i := range 18 {
			dark := (version<<12|rest)>>i&1 == 1
			c.set(c.size-11+i%3, i/3, dark)
			c.set(i/3, c.size-11+i%3, dark)
		}
	}
}

// format draws which mask is used, twice.
func (c *Code) format(mask int) {
	v := 1<<3 | mask // 1: the lowest error correction
	rest := v
	for range 10 {
		rest = rest<<1 ^ rest>>9*0x537
	}
	word := (v<<10 | rest) ^ 0x5412
	bit := func(i int) bool { return word>>i&1 == 1 }
	for i := range 6 {
		c.set(8, i, bit(i))
		c.set(14-9-i, 8, bit(9+i))
	}
	c.set(8, 7, bit(6))
	c.set(8, 8, bit(7))
	c.set(7, 8, bit(8))
	for i := range 8 {
		c.set(c.size-1-i, 8, bit(i))
	}
	for i := 8; i < 15; i++ {
		c.set(8, c.size-15+i, bit(i))
	}
	c.set(8, c.size-8, true)
}

// fill draws the codewords in columns of two, up and down.
func (c *Code) fill(words []byte) {
	i := 0
	for right := c.size - 1; right >= 1; right -= 2 {
		if right == 6 {
			right = 5
		}
		for step := range c.size {
			y := step
			if (right+1)&2 == 0 {
				y = c.size - 1 - step
			}
			for _, x := range []int{right, right - 1} {
				if !c.fixed[y*c.size+x] && i < 8*len(words) {
					c.dark[y*c.size+x] = words[i/8]>>(7-i%8)&1 == 1
					i++
				}
			}
		}
	}
}

// mask turns modules over; a second time, it takes that back.
func (c *Code) mask(mask int) {
	for y := range c.size {
		for x := range c.size {
			turn := false
			switch mask {
			case 0:
				turn = (x+y)%2 == 0
			case 1:
				turn = y%2 == 0
			case 2:
				turn = x%3 == 0
			case 3:
				turn = (x+y)%3 == 0
			case 4:
				turn = (x/3+y/2)%2 == 0
			case 5:
				turn = x*y%2+x*y%3 == 0
			case 6:
				turn = (x*y%2+x*y%3)%2 == 0
			case 7:
				turn = ((x+y)%2+x*y%3)%2 == 0
			}
			if i := y*c.size + x; turn && !c.fixed[i] {
				c.dark[i] = !c.dark[i]
			}
		}
	}
}

// penalty is higher for codes that are harder to read: long runs, blocks, what looks like
// the pattern in the corners, and too much of one color.
func (c *Code) penalty() (p int) {
	dark := 0
	for y := range c.size {
		for x := range c.size {
			d := c.Dark(x, y)
			if d {
				dark++
			}
			if x+1 < c.size && y+1 < c.size && c.Dark(x+1, y) == d && c.Dark(x, y+1) == d && c.Dark(x+1, y+1) == d {
				p += 3
			}
		}
	}
	for y := range c.size {
		for _, at := range []func(int) bool{func(x int) bool { return c.Dark(x, y) }, func(x int) bool { return c.Dark(y, x) }} {
			run, window := 0, uint16(0)
			for x := -4; x < c.size+4; x++ {
				if x > 0 && x < c.size && at(x) == at(x-1) {
					run++
				} else {
					run = 1
				}
				if x >= 0 && x < c.size && run == 5 {
					p += 3
				} else if x >= 0 && x < c.size && run > 5 {
					p++
				}
				window = window << 1 & 0x7ff
				if at(x) {
					window |= 1
				}
				if window == 0b10111010000 || window == 0b00001011101 {
					p += 40
				}
			}
		}
	}
	off := 20*dark - 10*len(c.dark)
	return p + max(off, -off)/len(c.dark)*10
}

// Terminal draws the code for a terminal that knows colors, two rows a line, dark on
// light whatever its colors are.
func (c *Code) Terminal() string {
	const border = 2
	blocks := [...]string{"█", "▀", "▄", " "} // light is drawn: upper, lower, both
	var b strings.Builder
	for y := -border; y < c.size+border; y += 2 {
		b.WriteString("\x1b[97;40m")
		for x := -border; x < c.size+border; x++ {
			upper, lower := c.Dark(x, y), c.Dark(x, y+1) || y+1 >= c.size+border
			i := 0
			if lower {
				i |= 1
			}
			if upper {
				i |= 2
			}
			b.WriteString(blocks[i])
		}
		b.WriteString("\x1b[0m\n")
	}
	return b.String()
}
