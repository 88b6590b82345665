package overlay

import (
	"crypto/tls"
	"net/http"

	"weft/overlay/api/client"
	"weft/overlay/cert"
	"weft/overlay/link"
)

// The one dialer for everything between this node and the server side, and
// what the node shows there of itself.

// dialTo is what a dialer needs to know about the server side.
type dialTo struct {
	urls  []string
	roots *cert.ServerRoots
	shown tls.Certificate
}

func (n *Node) dialer(to dialTo) *link.Dialer {
	return &link.Dialer{
		URLs:     func() []string { return to.urls },
		Roots:    func() *cert.ServerRoots { return to.roots },
		Identity: func() *tls.Certificate { return &to.shown },
		NetDial:  n.cfg.NetDial,
		Log:      n.log,
	}
}

// makeDialer returns the one dialer for everything between this node and the
// server side. It reads what is current at each use.
func (n *Node) makeDialer() *link.Dialer {
	return &link.Dialer{
		URLs: func() []string {
			if id := n.held.Identity(); id != nil {
				return id.URLs
			}
			return nil
		},
		Roots: func() *cert.ServerRoots {
			if s, ok := n.held.Get(); ok {
				return s.ServerRoots
			}
			return nil
		},
		Identity: n.shownCertificate,
		NetDial:  n.cfg.NetDial,
		Log:      n.log,
	}
}

// client is the coordination server's client for this node.
func (n *Node) client() *client.Client {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.running != nil {
		return n.running.client
	}
	rt := n.makeDialer().Transport()
	return client.New(rt, n.contact)
}

// shownCertificate is what this node shows in every handshake.
func (n *Node) shownCertificate() *tls.Certificate {
	id := n.held.Identity()
	if id == nil {
		return nil
	}
	c, err := id.TLS()
	if err != nil {
		n.log.Error("make certificate", "err", err)
		return nil
	}
	return c
}

func closeIdle(rt http.RoundTripper) {
	if c, ok := rt.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}
