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

// UDPPorts are a relay's sockets for UDP: that of --stun, where nodes ask for
// STUN and lanes, and, if the next port is free, a second one, where they ask for
// STUN only. Asked at both, a node learns whether the NAT in front of it shows
// each destination another port; from one it cannot. Both are served in the same
// way: on Linux, what a machine of several addresses answers leaves from the
// address that was asked.
type UDPPorts []*net.UDPConn

// UDP listens at a, and at the next port if that is free. The error names the
// flag that chooses another address.
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

// STUNAddrs is where nodes find the ports: at each of the hosts of urls, the
// one with lanes first.
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
				cancel() // half of it is not to look like all of it
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
