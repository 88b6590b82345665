package link

import (
	"crypto/fips140"
	"net/http"
	"net/http/httptest"
	"testing"

	"weft/overlay/fips/fipstest"
)

// asks is a RoundTripper that notes whether FIPS mode is enforced for it.
type asks struct {
	http.RoundTripper
	enforced *bool
}

func (a asks) RoundTrip(r *http.Request) (*http.Response, error) {
	*a.enforced = fips140.Enforced()
	return a.RoundTripper.RoundTrip(r)
}

// TestWebSocketInFIPSMode: the handshake works when FIPS mode is enforced, and nothing but
// its hash is exempt from that, before, beside or after it.
func TestWebSocketInFIPSMode(t *testing.T) {
	if !fipstest.Only(t) {
		return
	}
	after := make(chan bool, 1)
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ws, err := acceptWebSocket(w, r)
		if err != nil {
			t.Error(err)
			after <- false
			return
		}
		after <- fips140.Enforced()
		c := newWSConn(ws)
		defer c.Close()
		c.Write([]byte("x"))
	}))
	defer s.Close()
	var enforced bool
	ws, _, err := dialWebSocket(t.Context(), s.URL, http.Client{Transport: asks{s.Client().Transport, &enforced}})
	if err != nil {
		t.Fatal(err)
	}
	c := newWSConn(ws)
	defer c.Close()
	if n, err := c.Read(make([]byte, 1)); n != 1 || err != nil {
		t.Error(n, err)
	}
	if !enforced || !<-after || !fips140.Enforced() {
		t.Error("more than the hash is exempt")
	}
}
