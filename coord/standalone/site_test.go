package standalone

import (
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"weft/coord/ops"
)

// A relay that runs alone has a site as well. Strangers who hold all of it keep
// neither nodes nor others from it.
func TestCrowdedSite(t *testing.T) {
	s := startServer(t)
	r := start(t, options(t, s.token(ops.CreateKey{Relay: true})))
	var open atomic.Int64
	for i := range 80 {
		d := &tls.Dialer{NetDialer: &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 5)}}, Config: &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}}}
		c, err := d.DialContext(t.Context(), "tcp", r.Addr().String())
		if err != nil {
			t.Fatal(i, err)
		}
		open.Add(1)
		t.Cleanup(func() { c.Close() })
		go func() {
			io.Copy(io.Discard, c)
			open.Add(-1)
		}()
	}
	until(t, "those beyond the bound are closed", func() bool { return open.Load() <= 32 })
	pi := s.node("pi", "device")
	pi.connect(r)
	until(t, "welcome", pi.welcomed)
	person := &http.Client{
		Timeout: 20 * time.Second,
		Transport: &http.Transport{
			DialContext:     (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 6)}}).DialContext,
			TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
		},
	}
	defer person.CloseIdleConnections()
	res, err := person.Get("https://" + r.Addr().String() + "/healthz")
	if err != nil || res.StatusCode != http.StatusOK {
		t.Fatal(res, err)
	}
	res.Body.Close()
}
