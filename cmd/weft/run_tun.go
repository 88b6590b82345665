package main

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"slices"
	"syscall"

	"weft/dns"
	"weft/overlay"
	"weft/overlay/status"
	"weft/overlay/tun"
)

// makeTUN creates the kernel interface of --tun.
func (d *services) makeTUN(name string, rules inboundRules, log *slog.Logger) (overlay.Net, error) {
	inbound, err := rules.kernel(d.ownPorts())
	if err != nil {
		return nil, err
	}
	inbound.Watch = rules.watch(d, log)
	// It reports nothing before SetAddrs, when there is a node.
	n, err := tun.New(tun.Config{
		Name:    name,
		Inbound: inbound,
		Guard:   []netip.Addr{dns.ServiceAddr},
		Warn:    func(code status.Code, message string) { d.node.Load().Warn(code, message) },
		Clear:   func(code status.Code) { d.node.Load().Clear(code) },
		Gone:    func(err error) { d.failed <- fmt.Errorf("--tun %w", err) },
		Log:     log,
	})
	switch {
	case errors.Is(err, tun.ErrName):
		return nil, usagef("--tun %q: %w", name, tun.ErrName)
	case tunHint(err) != "":
		return nil, &status.Error{Kind: status.KindFailed, Message: fmt.Sprintf("--tun %s: %v", name, err),
			Hint: tunHint(err) + ", or omit --tun: user space needs neither"}
	case errors.Is(err, tun.ErrUnsupported):
		return nil, &status.Error{Kind: status.KindFailed, Message: fmt.Sprintf("--tun %s: %v", name, err), Hint: "omit --tun: user space works here"}
	case err != nil:
		return nil, fmt.Errorf("--tun %s: %w", name, err)
	}
	return n, nil
}

// tunHint says what to do if an interface cannot be created, "" for other errors. Even
// with access to /dev/net/tun a process needs CAP_NET_ADMIN, so its mode protects
// nothing.
func tunHint(err error) string {
	var denied *tun.PermissionError
	switch {
	case !errors.As(err, &denied):
		return ""
	case errors.Is(err, fs.ErrNotExist):
		return "load the driver as root with `modprobe tun`, or give a container --device /dev/net/tun and --cap-add NET_ADMIN"
	case errors.Is(err, syscall.EACCES):
		return "only root may open /dev/net/tun here: run as root, or allow others with `chmod 666 /dev/net/tun`; they also need CAP_NET_ADMIN"
	}
	return "run as root or with CAP_NET_ADMIN (setcap cap_net_admin+ep WEFT, or AmbientCapabilities=CAP_NET_ADMIN in the unit)"
}

// kernel converts the rules for the kernel interface. own are our own ports on
// loopback, which are never a target.
func (r inboundRules) kernel(own map[uint16]bool) (tun.Inbound, error) {
	in := tun.Inbound{Limited: !r.all, Maps: map[uint16]string{}}
	for port, target := range r.ports {
		switch {
		case target == "":
			in.Ports = append(in.Ports, port)
		case r.isOwn(target, port, own):
			return in, usagef("--inbound %d=%s: that is one of weft's own ports", port, target)
		default:
			in.Maps[port] = target
		}
	}
	slices.Sort(in.Ports)
	return in, nil
}
