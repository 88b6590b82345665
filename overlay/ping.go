package overlay

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"weft/overlay/internal/path"
	"weft/overlay/internal/pause"
	"weft/overlay/status"
)

// Ping implements localapi.Node: one echo through the tunnel.
func (n *Node) Ping(ctx context.Context, name string) (status.Pong, error) {
	r, s, err := n.runs()
	if err != nil {
		return status.Pong{}, err
	}
	if err := reaches(s); err != nil {
		return status.Pong{}, err
	}
	k, err := n.lookup.Resolve(ctx, s, name)
	if err != nil {
		return status.Pong{}, err
	}
	if k.Node.ID == s.Self.ID {
		return status.Pong{}, &status.Error{Kind: status.KindUsage, Message: k.Node.Name + " is this device"}
	}
	addr := k.Node.IPv4
	if asked, err := netip.ParseAddr(name); err == nil && asked.Is6() || err != nil && k.Node.IPv6.IsValid() && n.health.Has(status.CodeIPv4Blocked) {
		addr = k.Node.IPv6
	}
	// Make the tunnel first, so that only the round trip through it is measured.
	err = r.peers.Ensure(ctx, k.Node.ID)
	var rtt time.Duration
	if err == nil {
		err = r.through(ctx, k.Node.ID, func(ctx context.Context) (err error) {
			rtt, err = n.cfg.Net.Ping(ctx, addr)
			return err
		})
	}
	if err != nil {
		if status.KindOf(err) == status.KindTimeout {
			err = &status.Error{Kind: status.KindTimeout, Message: k.Node.Name + " does not answer"}
		}
		return status.Pong{}, n.lookup.SinceWhen(ctx, k, err)
	}
	r.peers.Measured(k.Node.ID, rtt)
	pong := status.Pong{
		Peer: status.PeerOf(k.Node, true, false), Addr: addr, RTT: rtt,
		Relay: r.peers.RelayOf(k.Node.ID),
	}
	var why path.Reason
	t := r.peers.Views()[k.Node.ID].Tunnel()
	pong.Path, why, pong.Endpoint = t.Shown()
	pong.Suite, pong.KeyExchange = t.Suite, t.KeyExchange
	pong.Reason = why.Text
	return pong, nil
}

// Wait implements localapi.Node.
func (n *Node) Wait(ctx context.Context, name string) error {
	st, ok, err := n.await(ctx, func(st status.State) bool { return st == status.StateRunning })
	switch {
	case err != nil:
		return err
	case !ok:
		return &status.Error{Kind: status.KindTimeout, Message: fmt.Sprintf("not connected to the relay (state: %s)", st), Hint: "see: weft status"}
	}
	for name != "" {
		once, cancel := context.WithTimeout(ctx, 5*time.Second)
		_, err := n.Ping(once, name)
		cancel()
		if err == nil {
			return nil
		}
		switch status.KindOf(err) {
		case status.KindDenied, status.KindUsage, status.KindNotJoined, status.KindUnknown:
			return err
		}
		if !pause.Sleep(ctx, 500*time.Millisecond) {
			return &status.Error{Kind: status.KindTimeout, Message: fmt.Sprintf("%s did not become reachable: %v", name, err)}
		}
	}
	return nil
}
