package tun

import "testing"

// TestPortRange covers the kernel's text, and the defaults for invalid text.
func TestPortRange(t *testing.T) {
	for text, want := range map[string][2]uint16{
		"32768\t60999\n": {32768, 60999},
		"1024 65535":     {1024, 65535},
		"5000 5000":      {5000, 5000},
		"":               {32768, 60999},
		"1024":           {32768, 60999},
		"1024 65536":     {32768, 60999},
		"2000 1000":      {32768, 60999},
		"1 2 3":          {32768, 60999},
		"x 2":            {32768, 60999},
	} {
		if first, last := portRange(text); [2]uint16{first, last} != want {
			t.Errorf("%q: %d to %d, want %v", text, first, last, want)
		}
	}
}
