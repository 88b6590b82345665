package main

import (
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"weft/cmd/internal/cli"
	"weft/netstack"
	"weft/netstack/loopback"
	"weft/overlay/status"
)

// inboundRules are --inbound: the ports that peers reach on this machine, and their
// targets. Policy is applied elsewhere (overlay/internal/filter).
type inboundRules struct {
	all   bool
	ports map[uint16]string // port to HOST:PORT; "" is the same port on this machine
}

// parseInbound parses all, none or a list of PORT[=HOST:PORT], which may contain all.
func parseInbound(s string) (inboundRules, error) {
	r := inboundRules{ports: map[uint16]string{}}
	switch s {
	case "none", "off", "":
		return r, nil
	}
	for _, item := range strings.Split(s, ",") {
		if strings.TrimSpace(item) == "all" {
			r.all = true
			continue
		}
		p, target, mapped := strings.Cut(strings.TrimSpace(item), "=")
		port, err := parsePort(p)
		if err != nil {
			return r, usagef("--inbound: %q is not PORT or PORT=HOST:PORT", cli.Plain(item))
		}
		if _, twice := r.ports[port]; twice {
			return r, usagef("--inbound: port %d is listed twice", port)
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

// policy converts the rules for netstack. own are our own ports on loopback, which are
// never a target, whatever the rules are.
func (r inboundRules) policy(own map[uint16]bool) netstack.Inbound {
	decide := func(_, dst netip.AddrPort) (string, bool) {
		target, ok := r.ports[dst.Port()]
		return target, (ok || r.all) && !r.isOwn(target, dst.Port(), own)
	}
	return netstack.Inbound{TCP: decide, UDP: decide}
}

// watch warns of programs that listen on ::1 only, where peers would look like local
// users, and says how to allow peers.
func (r inboundRules) watch(d *services, log *slog.Logger) *loopback.Watch {
	return &loopback.Watch{Report: func(port, target uint16, only6 bool) {
		node := d.node.Load()
		if node == nil {
			return
		}
		code := status.CodeInboundLoopback6.Of(strconv.Itoa(int(port)))
		if !only6 {
			node.Clear(code)
			return
		}
		msg := r.only6(port, target)
		log.Warn(msg)
		node.Warn(code, msg)
	}}
}

func (r inboundRules) only6(port, target uint16) string {
	open := fmt.Sprintf("with %d=[::1]:%d in --inbound", port, target)
	if r.all {
		open = fmt.Sprintf("with --inbound all,%d=[::1]:%d", port, target)
	}
	return fmt.Sprintf("peers cannot reach port %d: its program listens on [::1]:%d and not on 127.0.0.1. Make it listen on 127.0.0.1, or allow peers %s; they then look like local users, whom the program may trust", port, target, open)
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
