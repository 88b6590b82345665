package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"syscall"
	"time"

	"weft/coord/datadir"
	"weft/coord/ops"
	"weft/coord/webapi"
	"weft/overlay/cause"
)

// startupWait is how long Open waits for a process that has the data directory but
// not yet its socket, or no longer.
const startupWait = 5 * time.Second

// Open returns a client for the network in a data directory: of the server that runs
// on it, through its socket, or of the same API in this process, under the directory's
// lock, when none runs.
func Open(ctx context.Context, o ops.Options) (*Client, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	deadline := time.Now().Add(startupWait)
	for {
		c, err := dial(ctx, o.Data)
		if err == nil {
			return c, nil
		}
		if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ECONNREFUSED) {
			if errors.Is(err, syscall.ENOTDIR) {
				return nil, fmt.Errorf("read the data directory %s: not a directory; name that of the server with --data DIR", o.Data)
			}
			return nil, fmt.Errorf("reach the running server: %w", cause.Of(err))
		}
		s, err := ops.OpenService(ctx, ops.Options{Data: o.Data, Software: o.Software, Log: o.Log, Now: o.Now})
		if err == nil {
			c := New(base, inProcess{webapi.New(s, o.Log)})
			c.end = s.Close
			return c, nil
		}
		if !errors.Is(err, datadir.ErrLocked) || time.Now().After(deadline) {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// base is a server without a name in DNS.
const base = "http://weft-server"

// dial makes a client of the server that runs on a data directory.
func dial(ctx context.Context, data string) (*Client, error) {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		path, done, err := webapi.SocketPath(data)
		if err != nil {
			return nil, err
		}
		defer done()
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}
	conn, err := dial(ctx, "", "")
	if err != nil {
		return nil, err
	}
	conn.Close()
	return New(base, &http.Transport{DialContext: dial}), nil
}

// inProcess is a transport to a handler in this process, as root: whoever opened the
// data directory has it.
type inProcess struct{ api http.Handler }

// RoundTrip implements http.RoundTripper.
func (t inProcess) RoundTrip(r *http.Request) (*http.Response, error) {
	in := r.WithContext(webapi.WithActor(r.Context(), ops.Root()))
	if in.Body == nil {
		in.Body = http.NoBody
	}
	defer in.Body.Close()
	w := &response{header: http.Header{}, status: http.StatusOK}
	t.api.ServeHTTP(w, in)
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	return &http.Response{
		Status: strconv.Itoa(w.status) + " " + http.StatusText(w.status), StatusCode: w.status,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: w.header, Body: io.NopCloser(&w.body), ContentLength: int64(w.body.Len()), Request: r,
	}, nil
}

// response is an answer that is being written.
type response struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (w *response) Header() http.Header         { return w.header }
func (w *response) WriteHeader(status int)      { w.status = status }
func (w *response) Write(b []byte) (int, error) { return w.body.Write(b) }
