package coord

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/url"
	"strconv"
	"sync"

	"weft/overlay/relay/relayserver"
	"weft/overlay/stun"
)

// UDPPorts are a relay's sockets for UDP: that of --stun, which carries STUN and
// lanes, and, if the next port is free, a second one for STUN alone. Asked at
// both, a node learns whether the NAT in front of it shows each destination
// another port; from one it cannot.
type UDPPorts []*net.UDPConn

func listenUDP(addr string) (UDPPorts, error) {
	a, err := net.ResolveUDPAddr("udp", addr)
	if err != nil {
		return nil, err
	}
	first, err := net.ListenUDP("udp", a)
	if err != nil {
		return nil, err
	}
	ports := UDPPorts{first}
	if port := first.LocalAddr().(*net.UDPAddr).Port; port < 65535 {
		if second, err := net.ListenUDP("udp", &net.UDPAddr{IP: a.IP, Port: port + 1, Zone: a.Zone}); err == nil {
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
func (ports UDPPorts) Serve(ctx context.Context, relay *relayserver.Server, log *slog.Logger) error {
	var wg sync.WaitGroup
	errs := make([]error, len(ports))
	for i, p := range ports {
		wg.Go(func() {
			if i == 0 {
				errs[i] = relay.ServeUDP(ctx, p)
			} else {
				errs[i] = stun.NewServer(log).Serve(ctx, p)
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
