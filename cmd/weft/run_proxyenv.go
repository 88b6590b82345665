package main

import (
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"os"
	"strings"
)

// ignoreOwnProxy takes this daemon's own proxy out of its environment, where its
// owner has put it for curl and git: it is the way to the devices, and the daemon
// must not look for its server behind itself. proxy is --proxy. To be called
// before anything asks for the environment's proxy, which is then remembered.
func ignoreOwnProxy(proxy string, log *slog.Logger) {
	_, port, err := net.SplitHostPort(proxy)
	if err != nil {
		return // off
	}
	for _, name := range []string{"HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"} {
		if v := os.Getenv(name); v != "" && isLoopbackPort(v, port) {
			os.Unsetenv(name)
			log.Info("not looking for the server by way of our own proxy", "variable", name)
		}
	}
}

// isLoopbackPort reports whether a proxy as variables name it, with or without
// a scheme, is a port of this machine.
func isLoopbackPort(proxy, port string) bool {
	if !strings.Contains(proxy, "://") {
		proxy = "http://" + proxy
	}
	u, err := url.Parse(proxy)
	if err != nil || u.Port() != port {
		return false
	}
	ip, err := netip.ParseAddr(u.Hostname())
	return u.Hostname() == "localhost" || err == nil && ip.Unmap().IsLoopback()
}
