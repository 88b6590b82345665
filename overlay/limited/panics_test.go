package limited

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
)

func boom() { panic("boom") }

func TestSurvive(t *testing.T) {
	var out bytes.Buffer
	log := slog.New(slog.NewTextHandler(&out, nil))
	var reported error
	func() {
		defer Survive(log, "test", func(err error) { reported = err })
		wait := Go(boom)
		wait()
	}()
	var crash *Crash
	if !errors.As(reported, &crash) || crash.Value != "boom" {
		t.Errorf("reported %v", reported)
	}
	if !strings.Contains(out.String(), "limited.boom") {
		t.Errorf("the log has no stack of the panic: %s", out.String())
	}
	out.Reset()
	func() {
		defer Survive(log, "test", func(error) { t.Error("reported without a panic") })
		Go(func() {})()
	}()
	if out.Len() > 0 {
		t.Errorf("logged %s", out.String())
	}
}

// lockedBuffer is written to by a server's goroutines.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// take returns what was written since the last time.
func (l *lockedBuffer) take() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.b.Reset()
	return l.b.String()
}

func TestHandler(t *testing.T) {
	var out lockedBuffer
	s := httptest.NewUnstartedServer(Handler(slog.New(slog.NewTextHandler(&out, nil)), "test", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/boom":
			boom()
		case "/abort":
			panic(http.ErrAbortHandler)
		}
	})))
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	s.Start()
	defer s.Close()
	for path, logged := range map[string]bool{"/": false, "/abort": false, "/boom": true} {
		out.take()
		resp, err := http.Get(s.URL + path)
		if err == nil {
			io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
		}
		if (err == nil) != (path == "/") {
			t.Errorf("%s: %v", path, err)
		}
		if got := out.take(); strings.Contains(got, "limited.boom") != logged {
			t.Errorf("%s: logged %q", path, got)
		}
	}
}
