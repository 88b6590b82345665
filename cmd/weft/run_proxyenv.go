package main

import (
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"os"
	"strings"
)

// ignoreOwnProxy removes this daemon's own proxy from its environment. Its owner set it
// there for curl and git, to reach devices, but the daemon must not connect to its
// server through itself. proxy is --proxy. Call it before any code reads the
// environment's proxy, which is then cached.
func ignoreOwnProxy(proxy string, log *slog.Logger) {
	_, port, err := net.SplitHostPort(proxy)
	if err != nil {
		return // disabled
	}
	for _, name := range []string{"HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"} {
		if v := os.Getenv(name); v != "" && isLoopbackPort(v, port) {
			os.Unsetenv(name)
			log.Info("not connecting to the server through our own proxy", "variable", name)
		}
	}
}

// isLoopbackPort reports whether a proxy variable, with or without a scheme, names this
// port on loopback.
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
