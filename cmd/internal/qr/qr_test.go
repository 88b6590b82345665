package qr

import (
	"errors"
	"strings"
	"testing"

	"github.com/boombuler/barcode/qr"
)

// A code is, module by module, what another encoder makes of the text, but for the mask:
// that one may choose another.
func TestEncode(t *testing.T) {
	for _, n := range []int{1, 17, 18, 32, 33, 53, 78, 106, 107, 134, 135, 154, 192, 230, 231, 271, 272, 321, 367, 425} {
		text := strings.Repeat("https://vpn.example.org/approve?code=BCDFG-HJKLM&", 10)[:n]
		want, err := qr.Encode(text, qr.L, qr.Unicode)
		if err != nil {
			t.Fatal(err)
		}
		got, err := Encode(text)
		if err != nil {
			t.Errorf("%d bytes: %v", n, err)
			continue
		}
		if got.size != want.Bounds().Dx() {
			t.Errorf("%d bytes: %d modules a side, want %d", n, got.size, want.Bounds().Dx())
			continue
		}
		version := (got.size - 17) / 4
		mask := -1
		for m := range 8 {
			c, same := encode(text, version, m), true
			for y := range c.size {
				for x := range c.size {
					r, _, _, _ := want.At(x, y).RGBA()
					same = same && c.Dark(x, y) == (r == 0)
				}
			}
			if same {
				mask = m
			}
		}
		if mask < 0 {
			t.Errorf("%d bytes: with no mask it is what the other encoder made", n)
		}
		for m := range 8 {
			if c := encode(text, version, m); c.penalty() < got.penalty() {
				t.Errorf("%d bytes: mask %d is better", n, m)
			}
		}
	}
	if _, err := Encode(strings.Repeat("x", 426)); !errors.Is(err, ErrTooLong) {
		t.Errorf("426 bytes: %v", err)
	}
}

// What a terminal shows has the modules of the code in it, with a light border.
func TestTerminal(t *testing.T) {
	c, err := Encode("https://vpn.example.org/approve?code=BCDFG-HJKLM")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(c.Terminal(), "\n"), "\n")
	for y := -2; y < c.size+2; y++ {
		row := []rune(strings.TrimSuffix(strings.TrimPrefix(lines[(y+2)/2], "\x1b[97;40m"), "\x1b[0m"))
		if len(row) != c.size+4 {
			t.Fatalf("line %d has %d columns, want %d", (y+2)/2, len(row), c.size+4)
		}
		for x := -2; x < c.size+2; x++ {
			light := map[rune][2]bool{'█': {true, true}, '▀': {true, false}, '▄': {false, true}, ' ': {}}[row[x+2]][(y+2)%2]
			if light == c.Dark(x, y) {
				t.Fatalf("module %d,%d: light %v, dark %v", x, y, light, c.Dark(x, y))
			}
		}
	}
}
