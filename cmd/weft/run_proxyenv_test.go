package main

import (
	"log/slog"
	"os"
	"testing"
)

func TestIgnoreOwnProxy(t *testing.T) {
	for _, c := range []struct {
		proxy, value string
		ignored      bool
	}{
		{"127.0.0.1:1055", "socks5h://127.0.0.1:1055", true},
		{"127.0.0.1:1055", "http://127.0.0.1:1055/", true},
		{"127.0.0.1:1055", "localhost:1055", true},
		{"127.0.0.1:1055", "http://[::1]:1055", true},
		{"127.0.0.1:1055", "http://me:secret@127.0.0.1:1055", true},
		{"127.0.0.1:1055", "http://127.0.0.1:3128", false},
		{"127.0.0.1:1055", "http://192.168.1.1:1055", false},
		{"127.0.0.1:1055", "http://proxy.example:1055", false},
		{"127.0.0.1:1055", "http://%zz:1055", false},
		{"off", "http://127.0.0.1:1055", false},
	} {
		t.Setenv("https_proxy", c.value)
		ignoreOwnProxy(c.proxy, slog.New(slog.DiscardHandler))
		if ignored := os.Getenv("https_proxy") == ""; ignored != c.ignored {
			t.Errorf("--proxy %s and https_proxy=%s: ignored %v, want %v", c.proxy, c.value, ignored, c.ignored)
		}
	}
}
