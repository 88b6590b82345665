package limited

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"time"
)

const (
	// chunk is how much of a response must be sent before its deadline is extended:
	// with 30 s a client needs 550 bytes per second.
	chunk = 16 << 10
	// retryAfter is the Retry-After of clients that get no place, in seconds.
	retryAfter = 10
)

// errEvicted ends a response whose place was evicted.
var errEvicted = errors.New("the place was given to another client")

var chunks = sync.Pool{New: func() any { b := make([]byte, chunk); return &b }}

// Writer is w with a moving write deadline: there is one only while data waits to be
// written, d after the last 16 KB were sent. Each of these counts as progress of the
// place. With d 0 the deadlines are left alone. The server may have data left to write
// after the handler, so it calls End.
func Writer(w http.ResponseWriter, d time.Duration, p *Place) *ResponseWriter {
	rw := &ResponseWriter{ResponseWriter: w, rc: http.NewResponseController(w), d: d, place: p}
	rw.rest()
	return rw
}

// ResponseWriter is the result of Writer. http.ResponseController finds its other
// methods through Unwrap.
type ResponseWriter struct {
	http.ResponseWriter
	rc    *http.ResponseController
	d     time.Duration
	place *Place
}

// Unwrap is for http.ResponseController.
func (w *ResponseWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Hijack is for http.ResponseController. Hijacking takes the deadlines off the connection,
// and with them the end that an eviction had just set: it is set again.
func (w *ResponseWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	c, rw, err := w.rc.Hijack()
	if err == nil && w.place != nil && w.place.gone.Load() {
		c.SetDeadline(time.Unix(1, 0))
	}
	return c, rw, err
}

func (w *ResponseWriter) extend() {
	if w.d > 0 {
		w.rc.SetWriteDeadline(time.Now().Add(w.d))
	}
}

// rest takes the deadline off while nothing waits to be written: HTTP/2 would end the
// stream at it, whatever the handler is doing.
func (w *ResponseWriter) rest() {
	if w.d > 0 {
		w.rc.SetWriteDeadline(time.Time{})
	}
}

// End sets the deadline for the data that is left after the handler.
func (w *ResponseWriter) End() { w.extend() }

// Write implements http.ResponseWriter.
func (w *ResponseWriter) Write(b []byte) (n int, err error) {
	for {
		if w.place != nil && w.place.gone.Load() {
			return n, errEvicted
		}
		w.extend()
		m, err := w.ResponseWriter.Write(b[n:min(len(b), n+chunk)])
		w.place.Moved()
		if n += m; err != nil || n == len(b) {
			return n, err
		}
	}
}

// ReadFrom writes everything from r; io.Copy would allocate a larger buffer for each
// response.
func (w *ResponseWriter) ReadFrom(r io.Reader) (n int64, err error) {
	buf := chunks.Get().(*[]byte)
	defer chunks.Put(buf)
	for {
		m, readErr := r.Read(*buf)
		if m > 0 {
			m, err = w.Write((*buf)[:m])
			n += int64(m)
		}
		switch {
		case err != nil:
			return n, err
		case readErr == io.EOF:
			return n, nil
		case readErr != nil:
			return n, readErr
		}
	}
}

// Flush implements http.Flusher.
func (w *ResponseWriter) Flush() { w.FlushError() }

// FlushError is for http.ResponseController.
func (w *ResponseWriter) FlushError() error {
	w.extend()
	err := w.rc.Flush()
	w.place.Moved()
	if err == nil {
		w.rest()
	}
	return err
}

// Serve serves a request of addr with h if there is a place in b within wait, and
// refuses it otherwise. After the place was evicted, h's writes and reads fail, even on
// a connection that it has hijacked.
func (b *Budget) Serve(w http.ResponseWriter, r *http.Request, addr netip.Addr, wait time.Duration, h func(w http.ResponseWriter, p *Place)) {
	var mu sync.Mutex
	serving := true // guarded by mu; w must not be used once it is false
	p, err := b.Wait(r.Context().Done(), wait, addr, func() {
		mu.Lock()
		defer mu.Unlock()
		if serving {
			rc := http.NewResponseController(w)
			rc.SetWriteDeadline(time.Unix(1, 0))
			rc.SetReadDeadline(time.Unix(1, 0))
		}
	})
	if err != nil {
		Refuse(w, r, err)
		return
	}
	defer func() {
		p.Release()
		mu.Lock()
		serving = false
		mu.Unlock()
	}()
	h(Writer(w, 0, p), p)
}

// Refuse answers a request that has no place: 429 if its own address holds too many,
// otherwise 503.
func Refuse(w http.ResponseWriter, r *http.Request, err error) {
	status, text := http.StatusServiceUnavailable, "This server is too busy at the moment. Try again in a few seconds.\n"
	if errors.Is(err, ErrAddress) {
		status, text = http.StatusTooManyRequests, "Too many requests from your address at the moment. Try again in a few seconds.\n"
	}
	h := w.Header()
	h.Set("Retry-After", strconv.Itoa(retryAfter))
	h.Set("Cache-Control", "no-store")
	if r.ProtoMajor > 1 {
		// Do not read the body: that would wait for the client, and occupy resources
		// until then.
		w.WriteHeader(status)
		return
	}
	h.Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	io.WriteString(w, text)
}
