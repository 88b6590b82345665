package main

import (
	"net"
	"net/netip"
	"strconv"
	"strings"

	"weft/cmd/internal/cli"
	"weft/netstack"
)

// inboundRules are --inbound: which ports peers reach on this machine, and
// where those lead. What policy lets in is decided elsewhere (overlay/filter).
type inboundRules struct {
	all   bool
	ports map[uint16]string // port to HOST:PORT, "" is the same port here
}

// parseInbound reads all, none or PORT[=HOST:PORT],...
func parseInbound(s string) (inboundRules, error) {
	r := inboundRules{ports: map[uint16]string{}}
	switch s {
	case "all":
		r.all = true
		return r, nil
	case "none", "off", "":
		return r, nil
	}
	for _, item := range strings.Split(s, ",") {
		p, target, mapped := strings.Cut(strings.TrimSpace(item), "=")
		port, err := parsePort(p)
		if err != nil {
			return r, usagef("--inbound: %q is not PORT or PORT=HOST:PORT", cli.Plain(item))
		}
		if _, twice := r.ports[port]; twice {
			return r, usagef("--inbound: port %d is there twice", port)
		}
		if mapped {
			if target, err = parseInboundTarget(target); err != nil {
				return r, usagef("--inbound: %q is not PORT=HOST:PORT", cli.Plain(item))
			}
		}
		r.ports[port] = target
	}
	return r, nil
}

// parseInboundTarget accepts HOST:PORT, :PORT and PORT.
func parseInboundTarget(s string) (string, error) {
	if _, err := parsePort(s); err == nil {
		s = ":" + s
	}
	host, p, err := net.SplitHostPort(s)
	if err != nil {
		return "", err
	}
	if _, err := parsePort(p); err != nil {
		return "", err
	}
	if host == "" {
		host = "localhost"
	}
	return net.JoinHostPort(host, p), nil
}

// policy makes the rules what netstack asks. own are ports of ours on
// loopback, which are never a target, whatever the rules say.
func (r inboundRules) policy(own map[uint16]bool) netstack.Inbound {
	decide := func(src, dst netip.AddrPort) (string, netip.Addr, bool) {
		target, ok := r.ports[dst.Port()]
		if !ok && !r.all || r.isOwn(target, dst.Port(), own) {
			return "", netip.Addr{}, false
		}
		return target, netstack.LoopbackSource(src.Addr()), true
	}
	return netstack.Inbound{TCP: decide, UDP: decide}
}

// isOwn reports whether the target is one of our own listeners.
func (r inboundRules) isOwn(target string, port uint16, own map[uint16]bool) bool {
	host := "localhost"
	if target != "" {
		h, p, err := net.SplitHostPort(target)
		if err != nil {
			return true
		}
		n, _ := strconv.ParseUint(p, 10, 16)
		host, port = h, uint16(n)
	}
	if !own[port] {
		return false
	}
	ip, err := netip.ParseAddr(host)
	return err != nil || ip.Unmap().IsLoopback() || ip.IsUnspecified()
}
