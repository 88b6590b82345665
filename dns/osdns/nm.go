//go:build linux && !mips && !mipsle

package osdns

import (
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/godbus/dbus/v5"
)

// NetworkManager's D-Bus names.
const (
	nmName   = "org.freedesktop.NetworkManager"
	nmPath   = "/org/freedesktop/NetworkManager"
	nmDNS    = "/org/freedesktop/NetworkManager/DnsManager"
	nmDevice = "org.freedesktop.NetworkManager.Device."
)

// networkManager gives NetworkManager the resolver of our interface: it reapplies the
// interface's connection with DNS settings and stores nothing. It is for versions that
// undo other programs' settings in systemd-resolved.
type networkManager struct {
	// Constant.
	bus   caller
	iface string
	log   *slog.Logger
	// sub is systemd-resolved, which knows the base resolvers.
	sub *resolved

	isSet bool
}

// settings are D-Bus's a{sa{sv}}.
type settings = map[string]map[string]dbus.Variant

func (n *networkManager) set(ctx context.Context, c Config) ([]string, error) {
	n.sub.addr = c.Nameserver
	if i, err := n.sub.index(n.iface); err == nil {
		n.sub.ifindex = i
	}
	if err := n.reapply(ctx, c); err != nil {
		return nil, err
	}
	n.isSet = true
	applied := []string{fmt.Sprintf("nameserver %s on %s", c.Nameserver, n.iface)}
	if len(c.Search) > 0 {
		applied = append(applied, searchText(c))
	}
	if len(c.Match) > 0 {
		applied = append(applied, "names below "+joined(c.Match))
	}
	return applied, nil
}

// reapply applies the DNS settings of c to the interface's connection; the zero Config
// removes them.
func (n *networkManager) reapply(ctx context.Context, c Config) error {
	out, err := n.bus.call(ctx, nmName, nmPath, nmName+".GetDeviceByIpIface", n.iface)
	if err != nil {
		return err
	}
	if len(out) != 1 {
		return fmt.Errorf("NetworkManager does not know the interface %s", n.iface)
	}
	device := fmt.Sprint(out[0])
	out, err = n.bus.call(ctx, nmName, device, nmDevice+"GetAppliedConnection", uint32(0))
	if err != nil {
		return err
	}
	if len(out) != 2 {
		return fmt.Errorf("NetworkManager has no connection for %s", n.iface)
	}
	conn, ok1 := out[0].(settings)
	version, ok2 := out[1].(uint64)
	if !ok1 || !ok2 {
		return fmt.Errorf("NetworkManager's connection for %s cannot be read", n.iface)
	}
	withDNS(conn, c)
	_, err = n.bus.call(ctx, nmName, device, nmDevice+"Reapply", conn, version, uint32(0))
	return err
}

// withDNS adds the DNS settings of c to a connection.
func withDNS(conn settings, c Config) {
	var domains []string
	for _, d := range domainsOf(c) {
		if d.Route {
			domains = append(domains, "~"+d.Domain)
		} else {
			domains = append(domains, d.Domain)
		}
	}
	for _, family := range []string{"ipv4", "ipv6"} {
		s := conn[family]
		if s == nil {
			s = map[string]dbus.Variant{}
			conn[family] = s
		}
		// The old forms of addresses and routes conflict with the new ones.
		delete(s, "addresses")
		delete(s, "routes")
		mine := c.Nameserver.IsValid() && c.Nameserver.Is4() == (family == "ipv4")
		if !mine {
			delete(s, "dns")
			delete(s, "dns-search")
			delete(s, "dns-priority")
			continue
		}
		if c.Nameserver.Is4() {
			a := c.Nameserver.As4()
			s["dns"] = dbus.MakeVariant([]uint32{binary.NativeEndian.Uint32(a[:])})
		} else {
			s["dns"] = dbus.MakeVariant([][]byte{c.Nameserver.AsSlice()})
		}
		s["dns-search"] = dbus.MakeVariant(domains)
		s["dns-priority"] = dbus.MakeVariant(int32(50)) // the value for a VPN
		if c.Default {
			s["dns-priority"] = dbus.MakeVariant(int32(-50)) // a negative value excludes other resolvers
		}
		s["ignore-auto-dns"] = dbus.MakeVariant(true)
	}
}

func (n *networkManager) unset(ctx context.Context) error {
	if !n.isSet {
		return nil
	}
	if _, err := net.InterfaceByName(n.iface); err == nil {
		if err := n.reapply(ctx, Config{}); err != nil && !strings.Contains(err.Error(), "ServiceUnknown") {
			return err
		}
	}
	n.isSet = false
	return nil
}

func (n *networkManager) base(ctx context.Context) ([]netip.AddrPort, error) {
	base, err := n.sub.base(ctx)
	if err == nil {
		return base, nil
	}
	v, err := property(ctx, n.bus, nmName, nmDNS, nmName+".DnsManager", "Configuration")
	if err != nil {
		return nil, fmt.Errorf("read the resolvers of this machine: %w", err)
	}
	var out []netip.AddrPort
	list, _ := v.([]map[string]dbus.Variant)
	for _, entry := range list {
		if name, _ := entry["interface"].Value().(string); name == n.iface {
			continue
		}
		servers, _ := entry["nameservers"].Value().([]string)
		for _, s := range servers {
			if a, ok := parseServer(s); ok && a.Addr() != n.sub.addr && !slices.Contains(out, a) && len(out) < maxServers {
				out = append(out, a)
			}
		}
	}
	return out, nil
}

func (n *networkManager) intact(context.Context) (bool, error) { return n.isSet, nil }

func (n *networkManager) flush(ctx context.Context) { n.sub.flush(ctx) }

func (n *networkManager) close() {}
