//go:build e2e

package e2e

import (
	"context"
	"crypto/tls"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"weft/scripts/e2e/lab"
)

// A device's uplink of 256 kbit/s is full of its own uploads, with up to three seconds
// of them in the modem's queue. Its pages still arrive, and none is refused, however
// long it takes; the time of plain HTTPS is printed for comparison.
func TestSlowUplink(t *testing.T) {
	t.Parallel()
	m := lab.NewMesh(t, bin)
	page := strings.Repeat("kitchen ", 2500) // 20 kB
	serve := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, page) })
	m.DeviceHome.Serve("127.0.0.1:81", serve)
	srv := httptest.NewUnstartedServer(serve)
	srv.Listener.Close()
	srv.Listener = m.DeviceHome.Listen(m.DeviceHome.Addr + ":8443")
	srv.StartTLS()
	t.Cleanup(srv.Close)
	out := m.Host("out")
	sink := out.Listen(out.Addr + ":80")
	go func() {
		for {
			c, err := sink.Accept()
			if err != nil {
				return
			}
			go func() { io.Copy(io.Discard, c); c.Close() }()
		}
	}()
	queued := m.DeviceHome.SlowUplink(256_000, 3*time.Second)

	plain := &http.Client{Transport: &http.Transport{DialContext: m.LaptopHome.Dial, DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	get := func(c *http.Client, url string) time.Duration {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		begun := time.Now()
		resp, err := c.Do(req)
		if err != nil {
			t.Errorf("%s after %v: %v", url, time.Since(begun), err)
			return time.Since(begun)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil || string(b) != page {
			t.Errorf("%s: %s, %d bytes, %v", url, resp.Status, len(b), err)
		}
		return time.Since(begun)
	}
	direct := "https://" + m.DeviceHome.Router.Addr + ":8443/"
	ours := m.LaptopHome.HTTP(lab.SOCKSURL)
	ours.Timeout = 0 // get has a timeout
	t.Logf("an idle uplink: plain %v", get(plain, direct).Round(time.Millisecond))

	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for range 2 { // a single one has too little data in transit to fill the queue
		c, err := m.DeviceHome.Dial(ctx, "tcp", out.Addr+":80")
		if err != nil {
			t.Fatal(err)
		}
		context.AfterFunc(ctx, func() { c.Close() })
		wg.Go(func() {
			for b := make([]byte, 16<<10); ; {
				if _, err := c.Write(b); err != nil {
					return
				}
			}
		})
	}
	defer wg.Wait()
	defer cancel()
	m.Until(2*time.Minute, "the queue is half full", func() bool { return queued() > 1500*time.Millisecond })
	var p, o time.Duration
	for i := range 4 {
		was, took := get(plain, direct), get(ours, "http://kitchen-pi:81/")
		t.Logf("page %d: plain HTTPS %v, weft %v", i, was.Round(time.Millisecond), took.Round(time.Millisecond))
		p, o = p+was, o+took
	}
	t.Logf("weft takes %.1f times as long as plain HTTPS", o.Seconds()/p.Seconds())
}
