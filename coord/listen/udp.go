package listen

import (
	"context"
	"errors"
	"net"
	"net/url"
	"strconv"
	"sync"

	"weft/overlay/relay/relayserver"
)

// UDPPorts are a relay's UDP sockets: that of --stun, which nodes use for STUN and lanes, and, if
// the next port is free, a second one, which they use for STUN only. A node needs both to learn
// whether its NAT uses another external port for each destination. Both are served in the same
// way: on Linux, a machine with several addresses answers from the address that was asked.
type UDPPorts []*net.UDPConn

// UDP listens on a, and on the next port if that is free. The error names the flag with which to
// choose another address.
func UDP(a Address, flag string) (UDPPorts, error) {
	at, err := net.ResolveUDPAddr("udp", a.Addr)
	if err != nil {
		return nil, a.failed(flag, err)
	}
	first, err := net.ListenUDP("udp", at)
	if err != nil {
		return nil, a.failed(flag, err)
	}
	ports := UDPPorts{first}
	if port := first.LocalAddr().(*net.UDPAddr).Port; port < 65535 {
		if second, err := net.ListenUDP("udp", &net.UDPAddr{IP: at.IP, Port: port + 1, Zone: at.Zone}); err == nil {
			ports = append(ports, second)
		}
	}
	return ports, nil
}

// STUNAddrs returns the addresses at which nodes reach the ports: each port at each host of urls,
// those of the first port first.
func STUNAddrs(urls []string, ports UDPPorts) []string {
	addrs := []string{}
	for _, p := range ports {
		port := strconv.Itoa(p.LocalAddr().(*net.UDPAddr).Port)
		for _, raw := range urls {
			if u, err := url.Parse(raw); err == nil {
				addrs = append(addrs, net.JoinHostPort(u.Hostname(), port))
			}
		}
	}
	return addrs
}

// Serve answers at the ports until ctx ends or one of them fails.
func (ports UDPPorts) Serve(ctx context.Context, relay *relayserver.Server) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	errs := make([]error, len(ports))
	for i, p := range ports {
		wg.Go(func() {
			if errs[i] = relay.ServeUDP(ctx, p); errs[i] != nil {
				cancel() // if one port fails, stop both, so that the failure is noticed
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// Close closes the sockets.
func (ports UDPPorts) Close() {
	for _, p := range ports {
		p.Close()
	}
}
