package localapi

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// words is a log that a test reads while others write to it.
type words struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (w *words) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.Write(p)
}

func (w *words) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.String()
}

type brokenConn struct{ net.Conn }

func (brokenConn) Read([]byte) (int, error) { panic("crash in read") }

// A request whose handler panics ends, and its stack is in the log; the daemon and its
// other requests continue.
func TestCrashesAreSurvived(t *testing.T) {
	to := echo(t)
	node := &testNode{dial: func(ctx context.Context, network, address string) (net.Conn, error) {
		if strings.HasPrefix(address, "crash") {
			panic("crash in dial")
		}
		c, err := to(ctx, network, address)
		return brokenConn{c}, err
	}}
	var log words
	dir, err := os.MkdirTemp("", "weft") // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	l, err := Listen(filepath.Join(dir, "d", "s"), "")
	if err != nil {
		t.Fatal(err)
	}
	s := NewServer(ServerConfig{Node: node, Log: slog.New(slog.NewTextHandler(&log, nil))})
	done := make(chan struct{})
	go func() { defer close(done); s.Serve(l) }()
	defer func() { s.Close(); <-done }()
	client := NewClient(filepath.Join(dir, "d", "s"))
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for _, network := range []string{"tcp", "udp"} {
		if c, err := client.DialContext(ctx, network, "crash:7"); err == nil {
			c.Close()
			t.Errorf("%s: no error", network)
		}
		c, err := client.DialContext(ctx, network, "kitchen-pi:7")
		if err != nil {
			t.Fatal(err)
		}
		c.SetDeadline(time.Now().Add(10 * time.Second))
		io.ReadAll(c) // it ends, with or without an error
		c.Close()
	}
	for end := time.Now().Add(10 * time.Second); strings.Count(log.String(), "a request crashed") < 4 && time.Now().Before(end); {
		time.Sleep(5 * time.Millisecond)
	}
	if said := log.String(); strings.Count(said, "a request crashed") != 4 || !strings.Contains(said, "brokenConn") || !strings.Contains(said, "TestCrashesAreSurvived") {
		t.Errorf("the log: %s", said)
	}
	if _, err := client.Status(ctx); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}
