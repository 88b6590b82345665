package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"syscall"

	"weft/dns"
	"weft/overlay"
	"weft/overlay/cause"
	"weft/overlay/localapi"
	"weft/overlay/proxy"
	"weft/overlay/status"
)

// services are the daemon's local listeners.
type services struct {
	warnings []status.Health

	node atomic.Pointer[overlay.Node] // nil until the node exists; earlier warnings wait for it

	proxyListener net.Listener
	dnsPacket     net.PacketConn
	dnsListener   net.Listener

	metricsListener net.Listener // nil unless asked for
	metrics         *http.Server

	proxy *proxy.Proxy
	dns   *dns.Server
	// resolver is dns, for the node, which starts before it.
	resolver atomic.Pointer[dns.Server]
	osDNS    *osDNS // nil in user space
	api      *localapi.Server
	group    bool // whether a group may use the socket
	failed   chan error
}

// listen opens the ports of the proxy and the resolver.
func (d *services) listen(o *runOptions, log *slog.Logger) (err error) {
	if !off(o.proxy) {
		d.proxyListener, err = proxy.Listen(o.proxy)
		if err := d.taken(o, log, "proxy", o.proxy, status.CodeProxyPortTaken, err); err != nil {
			return err
		}
	}
	if !off(o.dns) {
		d.dnsPacket, d.dnsListener, err = dns.Listen(o.dns)
		if err := d.taken(o, log, "dns", o.dns, status.CodeDNSPortTaken, err); err != nil {
			return err
		}
	}
	if !off(o.metrics) {
		if d.metricsListener, err = listenMetrics(o.metrics); err != nil {
			return fmt.Errorf("--metrics %w", err)
		}
	}
	return nil
}

// taken downgrades the listen error of a taken port to a warning for default ports.
func (d *services) taken(o *runOptions, log *slog.Logger, flag, addr string, code status.Code, err error) error {
	if err == nil {
		return nil
	}
	if !errors.Is(err, syscall.EADDRINUSE) || o.explicit[flag] {
		if errors.Is(err, syscall.EADDRINUSE) {
			return &status.Error{Kind: status.KindFailed, Message: fmt.Sprintf("--%s %s: the port is taken", flag, addr),
				Hint: "choose another one, or --" + flag + " off"}
		}
		return fmt.Errorf("--%s: %w", flag, cause.Of(err))
	}
	h := status.Health{Code: code, Message: fmt.Sprintf("%s is taken by another program, so this daemon has no %s; choose another port with --%s", addr, flag, flag)}
	d.warnings = append(d.warnings, h)
	log.Warn(h.Message)
	return nil
}

// health sets a warning of the node; an empty message clears it.
func (d *services) health(code, message string) {
	switch node := d.node.Load(); {
	case node == nil: // there is no node yet
	case message == "":
		node.Clear(status.Code(code))
	default:
		node.Warn(status.Code(code), message)
	}
}

// ownPorts are the loopback ports that peers never reach.
func (d *services) ownPorts() map[uint16]bool {
	own := map[uint16]bool{}
	for _, l := range []net.Listener{d.proxyListener, d.dnsListener, d.metricsListener} {
		if l != nil {
			own[uint16(l.Addr().(*net.TCPAddr).Port)] = true
		}
	}
	return own
}

func (d *services) proxyAddr() string {
	if d.proxyListener == nil {
		return "off"
	}
	return d.proxyListener.Addr().String()
}

func (d *services) dnsAddr() string {
	if d.dnsListener == nil {
		return "off"
	}
	return d.dnsListener.Addr().String()
}

// serve starts everything. The resolver answers weft dns query even without a port.
func (d *services) serve(node *overlay.Node, sock net.Listener, log *slog.Logger) {
	names := dnsConfig(node, log)
	names.System = d.osDNS.base
	d.dns = dns.New(names)
	d.resolver.Store(d.dns)
	d.osDNS.serve(node, d.dns, names) // first, since it knows the machine's own resolvers
	if d.dnsListener != nil {
		d.dns.Serve(d.dnsPacket, d.dnsListener)
	}
	if d.proxyListener != nil {
		d.proxy = proxy.New(proxy.Config{Node: node, Log: log, Health: d.health})
		go func() {
			if err := d.proxy.Serve(d.proxyListener); !errors.Is(err, net.ErrClosed) {
				d.failed <- err
			}
		}()
	}
	d.api = localapi.NewServer(localapi.ServerConfig{
		Node: syncedNode{node, d.osDNS}, Health: func() []status.Health { return resolverHealth(d.dns) },
		DNS: queryDNS(d.dns), Resolver: resolverAPI(d.dns), OSDNS: d.osDNS.status(), Group: d.group, Log: log,
	})
	if d.metricsListener != nil {
		d.serveMetrics(node.Status, log)
	}
	go func() {
		if err := d.api.Serve(sock); !errors.Is(err, http.ErrServerClosed) {
			d.failed <- fmt.Errorf("local API: %w", err)
		}
	}()
}

// close closes everything, in an order that lets requests in progress end.
func (d *services) close() {
	if d.api != nil {
		d.api.Close()
	}
	if d.metrics != nil {
		d.metrics.Close()
	} else if d.metricsListener != nil {
		d.metricsListener.Close()
	}
	if d.proxy != nil {
		d.proxy.Close()
	} else if d.proxyListener != nil {
		d.proxyListener.Close()
	}
	if d.dns != nil {
		d.dns.Close()
	} else if d.dnsListener != nil {
		d.dnsListener.Close()
		d.dnsPacket.Close()
	}
}
