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

// serverSide makes the dialer for all links to servers and relays, with the certificate
// that the node presents there.
type serverSide struct {
	held    *network.Holder
	netDial func(ctx context.Context, network, address string) (net.Conn, error)
	log     *slog.Logger
}

// dialer returns the dialer of a node that is in a network. It uses the current config
// and certificate each time.
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

// dialerTo returns the dialer of a node that has yet to join: the server is at urls and
// must have a chain to roots; the node presents the certificate shown.
func (s *serverSide) dialerTo(urls []string, roots *cert.ServerRoots, shown tls.Certificate) *link.Dialer {
	return &link.Dialer{
		URLs:     func() []string { return urls },
		Roots:    func() *cert.ServerRoots { return roots },
		Identity: func() *tls.Certificate { return &shown },
		NetDial:  s.netDial,
		Log:      s.log,
	}
}

// homeAhead starts to make the link to the relay of a node that is about to be joined in
// its network s. It returns nil if there is a choice of relays or of their addresses.
func (s *serverSide) homeAhead(joined *network.Identity, in *network.Network) *link.Ahead {
	relays := in.Config.Relays
	if len(relays) != 1 || len(relays[0].URLs) != 1 {
		return nil
	}
	shown, err := joined.TLS()
	if err != nil {
		return nil // run returns the error
	}
	return s.dialerTo(joined.URLs, in.ServerRoots, *shown).DialRelayAhead(relays[0].ID, relays[0].URLs[0])
}

// shown returns the certificate that this node presents in every handshake, nil while it
// has no identity.
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

// client returns the API client for the coordination server.
func (n *Node) client() *client.Client {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.running != nil {
		return n.running.client
	}
	d := n.server.dialer()
	return client.New(d.Transport(), n.times.server)
}
