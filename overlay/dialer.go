package overlay

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"

	"weft/overlay/api/client"
	"weft/overlay/cert"
	"weft/overlay/internal/network"
	"weft/overlay/link"
)

// serverSide makes the one dialer for everything between this node and the server side,
// and says what the node shows there of itself.
type serverSide struct {
	held    *network.Holder
	netDial func(ctx context.Context, network, address string) (net.Conn, error)
	log     *slog.Logger
}

// dialer returns the dialer of a node that is in a network. It reads what is current at
// each use.
func (s *serverSide) dialer() *link.Dialer {
	return &link.Dialer{
		URLs: func() []string {
			if id := s.held.Identity(); id != nil {
				return id.URLs
			}
			return nil
		},
		Roots: func() *cert.ServerRoots {
			if now, ok := s.held.Get(); ok {
				return now.ServerRoots
			}
			return nil
		},
		Identity: s.shown,
		NetDial:  s.netDial,
		Log:      s.log,
	}
}

// dialerTo is dialer for a node that has yet to join: the server is at urls, has a chain
// to roots, and is shown that certificate.
func (s *serverSide) dialerTo(urls []string, roots *cert.ServerRoots, shown tls.Certificate) *link.Dialer {
	return &link.Dialer{
		URLs:     func() []string { return urls },
		Roots:    func() *cert.ServerRoots { return roots },
		Identity: func() *tls.Certificate { return &shown },
		NetDial:  s.netDial,
		Log:      s.log,
	}
}

// shown is what this node shows in every handshake, nil while it is nobody.
func (s *serverSide) shown() *tls.Certificate {
	id := s.held.Identity()
	if id == nil {
		return nil
	}
	c, err := id.TLS()
	if err != nil {
		s.log.Error("make certificate", "err", err)
		return nil
	}
	return c
}

// client is the coordination server's client for this node.
func (n *Node) client() *client.Client {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.running != nil {
		return n.running.client
	}
	d := n.server.dialer()
	return client.New(d.Transport(), n.times.server)
}
