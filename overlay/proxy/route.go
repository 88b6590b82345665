package proxy

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"syscall"

	"weft/overlay/status"
)

// dial connects to host:port over the overlay or directly. Errors are
// *status.Error or come from the net package.
func (p *Proxy) dial(ctx context.Context, network, host string, port uint16) (net.Conn, error) {
	done, err := p.wait(destination(host, port))
	if err != nil {
		return nil, err
	}
	defer done()
	ctx, cancel := context.WithTimeout(ctx, p.cfg.DialTimeout)
	defer cancel()
	host, overlay, err := p.route(ctx, host, port)
	if err != nil {
		return nil, err
	}
	address := net.JoinHostPort(host, strconv.Itoa(int(port)))
	if overlay {
		return p.cfg.Node.DialContext(ctx, network, address)
	}
	return p.dialDirect(ctx, network, address)
}

// destination is the text under which connections to a host and port are counted.
func destination(host string, port uint16) string {
	return net.JoinHostPort(strings.ToLower(host), strconv.Itoa(int(port)))
}

// route decides whether host is in the overlay, and under which name it is dialled
// there. It refuses what can be refused without resolving names; the rest is checked at
// the dial (direct.go).
func (p *Proxy) route(ctx context.Context, host string, port uint16) (to string, overlay bool, err error) {
	to, err = status.CleanName(host)
	if err != nil {
		return "", false, err
	}
	names := p.cfg.Node.Names()
	if names == nil {
		names = &status.Names{}
	}
	if ip, err := netip.ParseAddr(to); err == nil {
		ip = ip.Unmap()
		if inNetwork(names, ip) {
			return to, true, nil
		}
		return to, false, p.checkDirect(names, netip.AddrPortFrom(ip, port))
	}
	name := strings.ToLower(strings.TrimSuffix(to, "."))
	switch {
	case name == "localhost" || strings.HasSuffix(name, ".localhost"):
		return "", false, refused(host + " means this machine itself")
	case names.Suffix != "" && (name == names.Suffix || strings.HasSuffix(name, "."+names.Suffix)):
		return to, true, nil
	case endsInNumber(name):
		// 0x7f.1, 2130706433: no name has such an end, but some resolvers take it for
		// an address.
		return "", false, refused(host + " is neither a name nor an address in its usual form")
	case strings.Contains(name, "."):
		return to, false, nil
	}
	// A single label is a device of the overlay if there is one with that name,
	// otherwise a name of the local network. If nobody can tell, it is neither: a
	// connection to a device must not end up at another host of this network.
	_, err = p.cfg.Node.Resolve(ctx, name)
	if status.KindOf(err) != status.KindUnknown {
		return to, err == nil, err
	}
	if local := p.cfg.local(ctx, name, names.Suffix); local != "" {
		return local, false, nil
	}
	return "", false, err // no such device; err may suggest one
}

// endsInNumber reports whether the last label is a number, decimal or
// hexadecimal.
func endsInNumber(name string) bool {
	last := name[strings.LastIndexByte(name, '.')+1:]
	_, err := strconv.ParseUint(last, 0, 64)
	return err == nil || last != "" && strings.Trim(last, "0123456789") == ""
}

// inNetwork reports whether ip belongs to the overlay.
func inNetwork(n *status.Names, ip netip.Addr) bool {
	return n.IPv4.IsValid() && n.IPv4.Contains(ip) || n.IPv6.IsValid() && n.IPv6.Contains(ip)
}

func refused(why string) error {
	return &status.Error{Kind: status.KindDenied, Message: "refused: " + why}
}

// kindOf classifies an error of dial, including those of the net package.
func kindOf(err error) status.Kind {
	var dns *net.DNSError
	var ne net.Error
	switch k := status.KindOf(err); {
	case k != status.KindFailed:
		return k
	case errors.Is(err, syscall.ECONNREFUSED):
		return status.KindRefused
	case errors.As(err, &dns) && !dns.IsTimeout:
		return status.KindUnknown
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return status.KindUnreachable
	case errors.As(err, &ne) && ne.Timeout():
		return status.KindTimeout
	default:
		return status.KindFailed
	}
}
