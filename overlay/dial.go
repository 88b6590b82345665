package overlay

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"syscall"

	"weft/overlay/internal/lookup"
	"weft/overlay/status"
)

// Dial connects to "name:port" over the overlay: a short name, a full name or
// an overlay address. network is tcp, tcp4, tcp6, udp, udp4 or udp6.
func (n *Node) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	return n.DialContext(ctx, network, address)
}

// DialContext implements localapi.Node. It resolves the name, and then introduces the
// node and connects at the same time, so that the first packet is sent as soon as the
// keys are known.
func (n *Node) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, &status.Error{Kind: status.KindUsage, Message: fmt.Sprintf("address %q: %v", address, err)}
	}
	num, err := strconv.ParseUint(port, 10, 16)
	if err != nil || num == 0 {
		return nil, &status.Error{Kind: status.KindUsage, Message: fmt.Sprintf("port %q: want 1 to 65535", port)}
	}
	r, s, err := n.runs()
	if err != nil {
		return nil, err
	}
	if err := reaches(s); err != nil {
		return nil, err
	}
	k, err := n.lookup.Resolve(ctx, s, host)
	if err != nil {
		return nil, err
	}
	if k.Node.ID == s.Self.ID {
		return nil, &status.Error{Kind: status.KindUsage, Message: k.Node.Name + " is this device", Hint: "use localhost"}
	}
	addr := k.Node.IPv4
	asked, aerr := netip.ParseAddr(host)
	switch {
	case network[len(network)-1] == '6', aerr == nil && asked.Is6() && !asked.Is4In6(),
		aerr != nil && network[len(network)-1] != '4' && k.Node.IPv6.IsValid() && n.health.Has(status.CodeIPv4Blocked):
		addr = k.Node.IPv6
	}
	target := netip.AddrPortFrom(addr, uint16(num)).String()
	if network[:3] == "udp" {
		if err := r.peers.Ensure(ctx, k.Node.ID); err != nil {
			return nil, n.lookup.SinceWhen(ctx, k, err)
		}
		return n.cfg.Net.DialContext(ctx, network, target)
	}
	var c net.Conn
	err = r.through(ctx, k.Node.ID, func(ctx context.Context) (err error) {
		c, err = n.cfg.Net.DialContext(ctx, network, target)
		if errors.Is(err, syscall.EHOSTUNREACH) {
			// This error is of an earlier introduction, which failed.
			if err := r.peers.Ensure(ctx, k.Node.ID); err != nil {
				return err // it has the reason
			}
			c, err = n.cfg.Net.DialContext(ctx, network, target)
		}
		return err
	})
	if err != nil {
		return nil, n.lookup.SinceWhen(ctx, k, dialError(k.Node.Name, port, err))
	}
	return c, nil
}

// dialError turns an error of connecting through the tunnel into one for users.
func dialError(name, port string, err error) error {
	var known *status.Error
	switch {
	case errors.As(err, &known):
		return err
	case errors.Is(err, syscall.ECONNREFUSED):
		return &status.Error{Kind: status.KindRefused, Message: fmt.Sprintf("%s refused the connection: nothing listens on port %s there", name, port)}
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		return &status.Error{Kind: status.KindDenied, Message: fmt.Sprintf("%s: denied by policy", name)}
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return &status.Error{Kind: status.KindUnreachable, Message: fmt.Sprintf("%s is unreachable", name), Hint: "see: weft status"}
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, syscall.ETIMEDOUT):
		return &status.Error{Kind: status.KindTimeout, Message: fmt.Sprintf("%s does not answer on port %s", name, port)}
	}
	return fmt.Errorf("connect to %s port %s: %w", name, port, err)
}

// Listen accepts connections of peers to this node's port, as far as policy allows them.
// network is tcp, tcp4 or tcp6; the address is ":port".
func (n *Node) Listen(network, address string) (net.Listener, error) {
	s, ok := n.held.Get()
	if !ok {
		return nil, lookup.ErrNotJoined
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("listen on %q: %w", address, err)
	}
	num, err := strconv.ParseUint(port, 10, 16)
	if err != nil || host != "" {
		return nil, fmt.Errorf("listen on %q: want \":PORT\"", address)
	}
	switch network {
	case "tcp", "tcp4":
		return n.cfg.Net.ListenTCP(netip.AddrPortFrom(s.Self.IPv4, uint16(num)))
	case "tcp6":
		return n.cfg.Net.ListenTCP(netip.AddrPortFrom(s.Self.IPv6, uint16(num)))
	}
	return nil, fmt.Errorf("listen on %q: network %q: want tcp, tcp4 or tcp6", address, network)
}
