package webhook

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// TestSlow: an attempt takes Timeout at most, wherever the receiver hangs: before it
// accepts, before it answers, in the header, in the body.
func TestSlow(t *testing.T) {
	for _, c := range []struct {
		name string
		dial bool // it is not even reached
		url  string
		says []string
		took time.Duration
		good bool
	}{
		{"not reached", true, "http://127.0.0.1/", nil, Timeout, false},
		{"no answer", false, "http://127.0.0.1/", nil, Timeout, false},
		{"header", false, "http://127.0.0.1/", []string{"HTTP/1.1 200 OK\r\nX: "}, Timeout, false},
		{"one byte a second", false, "http://127.0.0.1/", append([]string{"HTTP/1.1 200 OK\r\nX: "}, strings.Split(strings.Repeat("x", 100), "")...), Timeout, false},
		{"body", false, "http://127.0.0.1/", []string{"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nx"}, Timeout, true}, // it was taken
		{"many informational answers", false, "http://127.0.0.1/", []string{strings.Repeat("HTTP/1.1 103 Early Hints\r\nX: x\r\n\r\n", 10000)}, 0, false},
		{"another protocol", false, "http://127.0.0.1/", []string{"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n"}, 0, false},
		{"TLS handshake", false, "https://127.0.0.1/", nil, Timeout, false},
		{"answer", false, "http://127.0.0.1/", []string{"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"}, 0, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var receiver sync.WaitGroup
				defer receiver.Wait()
				s := &Sender{
					Dial: func(ctx context.Context, _ netip.AddrPort) (net.Conn, error) {
						if c.dial {
							<-ctx.Done()
							return nil, ctx.Err()
						}
						here, there := net.Pipe()
						receiver.Go(func() {
							defer there.Close()
							if strings.HasPrefix(c.url, "https") {
								io.Copy(io.Discard, there)
								return
							}
							req, err := http.ReadRequest(bufio.NewReader(there))
							if err != nil {
								return
							}
							io.Copy(io.Discard, req.Body)
							for i, s := range c.says {
								if i > 0 {
									time.Sleep(time.Second)
								}
								if _, err := io.WriteString(there, s); err != nil {
									return
								}
							}
							io.Copy(io.Discard, there) // until the other end goes
						})
						return here, nil
					},
				}
				began := time.Now()
				res := post(t, s, c.url, loopback)
				if took := time.Since(began); took != c.took || (res.Err == nil) != c.good {
					t.Errorf("after %s: %+v", took, res)
				}
				if !c.good && c.took > 0 && res.Err.Error() != "no answer within 10s" {
					t.Errorf("%v", res.Err)
				}
			})
		})
	}
}
