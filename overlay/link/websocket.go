package link

import (
	"context"
	"net"

	"github.com/coder/websocket"
)

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
