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

// inboundRules are --inbound: which ports peers reach on this machine, and
// where those lead. What policy lets in is decided elsewhere (overlay/internal/filter).
type inboundRules struct {
	all   bool
	ports map[uint16]string // port to HOST:PORT, "" is the same port here
}

// parseInbound reads all, none or a list of PORT[=HOST:PORT], of which all may be
// one.
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
	decide := func(_, dst netip.AddrPort) (string, bool) {
		target, ok := r.ports[dst.Port()]
		return target, (ok || r.all) && !r.isOwn(target, dst.Port(), own)
	}
	return netstack.Inbound{TCP: decide, UDP: decide}
}

// watch tells the owner of programs that listen on ::1 only, where peers would pass
// for programs of this machine, and how to let them in all the same.
func (r inboundRules) watch(d *services, log *slog.Logger) *loopback.Watch {
	return &loopback.Watch{Tell: func(port, target uint16, only6 bool) {
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
	return fmt.Sprintf("peers do not reach port %d: its program listens on [::1]:%d and not on 127.0.0.1. Have it listen on 127.0.0.1, or let peers in %s; to the program they are then local users, whom it may trust", port, target, open)
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
