package link

import (
	"context"
	"crypto/fips140"
	"net"
	"net/http"

	"github.com/coder/websocket"
)

// dialWebSocket is websocket.Dial without compression. RFC 6455 wants SHA-1 in the
// handshake, which protects nothing but is refused when FIPS mode is enforced: that alone
// is exempt. The request, with its TLS, is not, since it is made on a goroutine that begins
// outside.
func dialWebSocket(ctx context.Context, url string, c http.Client) (ws *websocket.Conn, resp *http.Response, err error) {
	enforced := elsewhere{c.Transport, make(chan func())}
	defer close(enforced.calls)
	go func() {
		for f := range enforced.calls {
			f()
		}
	}()
	c.Transport = enforced
	fips140.WithoutEnforcement(func() {
		ws, resp, err = websocket.Dial(ctx, url, &websocket.DialOptions{HTTPClient: &c, CompressionMode: websocket.CompressionDisabled})
	})
	return ws, resp, err
}

// elsewhere makes its requests on the goroutine that takes calls.
type elsewhere struct {
	http.RoundTripper
	calls chan func()
}

// RoundTrip implements http.RoundTripper.
func (e elsewhere) RoundTrip(req *http.Request) (resp *http.Response, err error) {
	done := make(chan struct{})
	e.calls <- func() {
		defer close(done)
		resp, err = e.RoundTripper.RoundTrip(req)
	}
	<-done
	return resp, err
}

// acceptWebSocket is websocket.Accept without compression, with the same exemption. Any
// origin will do: the TLS session inside authenticates itself and cookies are not used.
func acceptWebSocket(w http.ResponseWriter, r *http.Request) (ws *websocket.Conn, err error) {
	fips140.WithoutEnforcement(func() {
		ws, err = websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true, CompressionMode: websocket.CompressionDisabled})
	})
	return ws, err
}

// wsConn is a WebSocket as a stream of bytes. Unlike the library's own, Close
// does not wait for the other side.
type wsConn struct {
	net.Conn
	ws     *websocket.Conn
	cancel context.CancelFunc
}

func newWSConn(ws *websocket.Conn) *wsConn {
	// The stream outlives the contexts of request and dial.
	ctx, cancel := context.WithCancel(context.Background())
	return &wsConn{Conn: websocket.NetConn(ctx, ws, websocket.MessageBinary), ws: ws, cancel: cancel}
}

func (c *wsConn) Close() error {
	c.cancel()
	return c.ws.CloseNow()
}
