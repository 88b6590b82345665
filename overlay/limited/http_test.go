package limited

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// slowWriter records under which deadlines data was written.
type slowWriter struct {
	*httptest.ResponseRecorder
	deadline time.Time
	sizes    []int
	bare     bool // whether data was written without a deadline
}

func (w *slowWriter) SetWriteDeadline(t time.Time) error { w.deadline = t; return nil }

func (w *slowWriter) Write(b []byte) (int, error) {
	w.sizes, w.bare = append(w.sizes, len(b)), w.bare || w.deadline.IsZero()
	return w.ResponseRecorder.Write(b)
}

func TestWriter(t *testing.T) {
	body := bytes.Repeat([]byte("x"), 3*chunk+100)
	for name, write := range map[string]func(w io.Writer) (int64, error){
		"Write":    func(w io.Writer) (int64, error) { n, err := w.Write(body); return int64(n), err },
		"ReadFrom": func(w io.Writer) (int64, error) { return io.Copy(w, io.LimitReader(bytes.NewReader(body), 1<<30)) },
	} {
		under := &slowWriter{ResponseRecorder: httptest.NewRecorder()}
		w := Writer(under, time.Minute, nil)
		if n, err := write(w); n != int64(len(body)) || err != nil {
			t.Errorf("%s: %d, %v", name, n, err)
		}
		if !bytes.Equal(under.Body.Bytes(), body) || len(under.sizes) != 4 || under.sizes[0] != chunk || under.bare {
			t.Errorf("%s: written as %v, without deadline: %v", name, under.sizes, under.bare)
		}
		if err := http.NewResponseController(w).Flush(); err != nil || !under.Flushed || !under.deadline.IsZero() {
			t.Errorf("%s: flushed %v, %v; deadline %s", name, under.Flushed, err, under.deadline)
		}
		if w.End(); time.Until(under.deadline) < time.Second {
			t.Errorf("%s: no deadline at the end", name)
		}
	}
}

// A request beyond the bound gets an error; one whose place was evicted cannot continue
// writing.
func TestServe(t *testing.T) {
	b := NewBudget(2, 1)
	entered, failed := make(chan string, 9), make(chan error, 9)
	var patient atomic.Bool
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b.Serve(w, r, netip.MustParseAddr(r.Header.Get("From")), 0, func(w http.ResponseWriter, p *Place) {
			p.Idle(true) // the next request may evict it
			if !patient.Load() {
				p.Idle(false)
			}
			entered <- r.Header.Get("From")
			var err error
			for block := make([]byte, 1<<20); err == nil && r.URL.Path == "/long"; {
				_, err = w.Write(block) // until the client no longer reads
			}
			failed <- err
		})
	}))
	srv.EnableHTTP2 = true
	srv.StartTLS()
	defer srv.Close()
	get := func(path, from string) *http.Response {
		t.Helper()
		req, _ := http.NewRequest("GET", srv.URL+path, nil)
		req.Header.Set("From", from)
		res, err := srv.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { res.Body.Close() })
		return res
	}
	patient.Store(true)
	get("/long", "192.0.2.1")
	<-entered
	patient.Store(false)
	get("/long", "192.0.2.1") // the first one is evicted
	<-entered
	if err := <-failed; err == nil {
		t.Error("it continued after the eviction")
	}
	if res := get("/", "192.0.2.1"); res.StatusCode != http.StatusTooManyRequests || res.Header.Get("Retry-After") == "" {
		t.Errorf("%s %v", res.Status, res.Header)
	}
	get("/long", "192.0.2.2")
	<-entered
	if res := get("/", "192.0.2.3"); res.StatusCode != http.StatusServiceUnavailable || res.Header.Get("Retry-After") == "" {
		t.Errorf("%s %v", res.Status, res.Header)
	}
	// Over HTTP/1 there is also a text.
	rec := httptest.NewRecorder()
	if Refuse(rec, httptest.NewRequest("GET", "/", nil), ErrAddress); rec.Code != http.StatusTooManyRequests || !strings.Contains(rec.Body.String(), "your address") {
		t.Errorf("%d %q", rec.Code, rec.Body)
	}
	srv.CloseClientConnections()
	for range 2 {
		if err := <-failed; err == nil || errors.Is(err, errEvicted) {
			t.Error(err)
		}
	}
	if n := b.Len(); n > 2 {
		t.Errorf("%d places are in use", n)
	}
}

// A handler that waits to read, from its request or from a hijacked connection, ends
// when its place is evicted, too.
func TestServeReader(t *testing.T) {
	for name, read := range map[string]func(w http.ResponseWriter, r *http.Request) error{
		"body": func(w http.ResponseWriter, r *http.Request) error {
			_, err := io.Copy(io.Discard, r.Body)
			return err
		},
		"hijacked": func(w http.ResponseWriter, r *http.Request) error {
			c, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return err
			}
			defer c.Close()
			_, err = io.Copy(io.Discard, c)
			return err
		},
		"hijacked after": func(w http.ResponseWriter, r *http.Request) error {
			for !w.(*ResponseWriter).place.Gone() {
				runtime.Gosched()
			}
			time.Sleep(time.Millisecond) // the eviction has set its deadlines by then, or does so at once
			c, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				return err
			}
			defer c.Close()
			_, err = io.Copy(io.Discard, c)
			return err
		},
		"context": func(w http.ResponseWriter, r *http.Request) error {
			io.Copy(io.Discard, io.LimitReader(r.Body, 1)) // so that the server watches the connection
			w.(http.Flusher).Flush()
			<-r.Context().Done()
			return r.Context().Err()
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := NewBudget(1, 1)
			addr := netip.MustParseAddr("192.0.2.1")
			entered, ended := make(chan struct{}), make(chan error, 1)
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				b.Serve(w, r, addr, 0, func(w http.ResponseWriter, p *Place) {
					p.Idle(true) // the next request may evict it
					close(entered)
					ended <- read(w, r)
				})
			}))
			defer srv.Close()
			c, err := net.Dial("tcp", srv.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			head := "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n"
			if name == "context" {
				head = "GET / HTTP/1.1\r\nHost: x\r\n\r\n"
			}
			if _, err := io.WriteString(c, head); err != nil {
				t.Fatal(err)
			}
			<-entered
			if _, err := b.Take(addr, func() {}); err != nil {
				t.Fatal(err)
			}
			if err := <-ended; err == nil {
				t.Error("it read to the end")
			}
		})
	}
}
