package limited

import (
	"errors"
	"io"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"time"
)

const (
	// chunk is how much of a response has to leave before its deadline moves on:
	// with 30 s a client needs 550 bytes a second.
	chunk = 16 << 10
	// retryAfter is what those who find no place are told, in seconds.
	retryAfter = 10
)

// errEvicted ends a response whose place was given to somebody else.
var errEvicted = errors.New("the place was given to another client")

var chunks = sync.Pool{New: func() any { b := make([]byte, chunk); return &b }}

// Writer is w with a write deadline that moves on: there is one only while
// something waits to be written, and it is d from when the last 16 KB left. The
// place notes each of these. d 0: the deadlines are somebody else's. After the
// handler the server may have something left to write, so it calls End.
func Writer(w http.ResponseWriter, d time.Duration, p *Place) *ResponseWriter {
	return &ResponseWriter{ResponseWriter: w, rc: http.NewResponseController(w), d: d, place: p}
}

// ResponseWriter is what Writer returns. http.ResponseController finds what it
// does not have itself.
type ResponseWriter struct {
	http.ResponseWriter
	rc    *http.ResponseController
	d     time.Duration
	place *Place
}

// Unwrap is for http.ResponseController.
func (w *ResponseWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *ResponseWriter) extend() {
	if w.d > 0 {
		w.rc.SetWriteDeadline(time.Now().Add(w.d))
	}
}

// End sets the deadline for what is left when the handler has returned.
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

// ReadFrom is Write of all that r has; io.Copy would take a larger buffer of its
// own for each response.
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
	if err == nil && w.d > 0 {
		w.rc.SetWriteDeadline(time.Time{}) // nothing waits; HTTP/2 ends a stream whose time is over all the same
	}
	return err
}

// Serve serves a request of addr with h when there is a place in b, within wait,
// and refuses it if not. Once the place was taken away, what h writes fails, and what
// it waits to read, also from a connection that it has hijacked.
func (b *Budget) Serve(w http.ResponseWriter, r *http.Request, addr netip.Addr, wait time.Duration, h func(w http.ResponseWriter, p *Place)) {
	var mu sync.Mutex
	serving := true // mu guards it: afterwards w is not ours
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

// Refuse answers a request for which there is no place: 429 when it is its own
// address that holds too many, else 503.
func Refuse(w http.ResponseWriter, r *http.Request, err error) {
	status, text := http.StatusServiceUnavailable, "This server has too much to do at the moment. Try again in a few seconds.\n"
	if errors.Is(err, ErrAddress) {
		status, text = http.StatusTooManyRequests, "Too much is open from your address at the moment. Try again in a few seconds.\n"
	}
	h := w.Header()
	h.Set("Retry-After", strconv.Itoa(retryAfter))
	h.Set("Cache-Control", "no-store")
	if r.ProtoMajor > 1 {
		// A body would wait for the client's flow control, and hold more than it
		// is worth until then.
		w.WriteHeader(status)
		return
	}
	h.Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	io.WriteString(w, text)
}
