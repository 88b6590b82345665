package proxy

import (
	"testing"

	"weft/overlay/limited"
)

func TestDefaultMaxConns(t *testing.T) {
	for _, c := range []struct {
		memory int64
		want   int
	}{{0, 2048}, {64 << 20, 1024}, {1<<30 - 4, 1024}, {1 << 30, 2048}, {64 << 30, 2048}} {
		if got := defaultMaxConns(c.memory); got != limited.ToFiles(c.want) {
			t.Errorf("%d bytes of memory: %d, want %d", c.memory, got, c.want)
		}
	}
}
