//go:build linux && !mips && !mipsle

package osdns

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// systemd-resolved's D-Bus names.
const (
	resolvedName    = "org.freedesktop.resolve1"
	resolvedPath    = "/org/freedesktop/resolve1"
	resolvedManager = "org.freedesktop.resolve1.Manager."
	resolvedLink    = "org.freedesktop.resolve1.Link"
)

// resolved gives systemd-resolved the settings of our interface. They end with the
// interface, so a killed daemon leaves nothing behind.
type resolved struct {
	// Constant.
	bus   caller
	iface string
	log   *slog.Logger
	index func(iface string) (int, error) // number of an interface

	addr    netip.Addr // address that was set
	ifindex int
	behind  bool     // Config.SearchLast
	others  []string // search domains of other interfaces, set before ours
}

func newResolved(bus caller, iface string, log *slog.Logger) *resolved {
	return &resolved{bus: bus, iface: iface, log: log, index: func(name string) (int, error) {
		i, err := net.InterfaceByName(name)
		if err != nil {
			return 0, err
		}
		return i.Index, nil
	}}
}

// linkDNS and linkDomain are D-Bus's (iay) and (sb).
type linkDNS struct {
	Family  int32
	Address []byte
}

type linkDomain struct {
	Domain string
	Route  bool // route names below it here, but do not search it
}

func dnsOf(a netip.Addr) linkDNS {
	family := int32(2) // AF_INET
	if a.Is6() {
		family = 10
	}
	return linkDNS{family, a.AsSlice()}
}

// domainsOf is resolved's domain list for a Config: search domains first.
func domainsOf(c Config) []linkDomain {
	var out []linkDomain
	for _, d := range c.Search {
		out = append(out, linkDomain{d, false})
	}
	for _, d := range c.Match {
		if !slices.Contains(c.Search, d) { // search domains are also routed
			out = append(out, linkDomain{d, true})
		}
	}
	if c.Default {
		out = append(out, linkDomain{".", true})
	}
	return out
}

func (r *resolved) set(ctx context.Context, c Config) ([]string, error) {
	index, err := r.index(r.iface)
	if err != nil {
		return nil, fmt.Errorf("interface %s: %w", r.iface, err)
	}
	r.ifindex, r.addr, r.behind, r.others = index, c.Nameserver, c.SearchLast, nil
	if c.SearchLast {
		// resolved searches the lists of all interfaces at once, so ours come after
		// another interface's only within one list.
		if r.others, err = r.searched(ctx); err != nil {
			return nil, err
		}
		c.Search = searchList(c, r.others)
	}
	i := int32(index)
	if err := r.tell(ctx, "SetLinkDNS", i, []linkDNS{dnsOf(c.Nameserver)}); err != nil {
		return nil, refused(err)
	}
	applied := []string{fmt.Sprintf("nameserver %s on %s", c.Nameserver, r.iface)}
	domains := domainsOf(c)
	err = r.tell(ctx, "SetLinkDomains", i, domains)
	reverse := true
	if tooMany(err) {
		// Older versions accept 32; the reverse zones are the least important.
		reverse = false
		domains = slices.DeleteFunc(domains, func(d linkDomain) bool { return isReverse(d.Domain) })
		err = r.tell(ctx, "SetLinkDomains", i, domains)
	}
	if err != nil {
		return nil, err
	}
	if len(c.Search) > 0 {
		applied = append(applied, searchText(c))
	}
	var routes []string
	for _, d := range domains {
		if d.Route && !isReverse(d.Domain) {
			routes = append(routes, d.Domain)
		}
	}
	if len(routes) > 0 {
		applied = append(applied, "names below "+joined(routes))
	}
	switch n := len(domains) - len(routes) - len(c.Search); {
	case !reverse:
		applied = append(applied, "no reverse lookups: systemd-resolved accepts too few domains")
	case n > 0:
		applied = append(applied, fmt.Sprintf("reverse lookups (%d zones)", n))
	}
	// Settings that older versions lack, or that were disabled at build time.
	for _, o := range []struct {
		method string
		value  any
	}{
		{"SetLinkDefaultRoute", c.Default},
		{"SetLinkLLMNR", "no"},
		{"SetLinkMulticastDNS", "no"},
		{"SetLinkDNSSEC", "no"},
		{"SetLinkDNSOverTLS", "no"},
	} {
		if err := r.tell(ctx, o.method, i, o.value); err != nil {
			if ctx.Err() != nil {
				return nil, err
			}
			r.log.Info("systemd-resolved does not accept a setting", "setting", o.method, "err", err)
		}
	}
	r.flush(ctx)
	return applied, nil
}

func (r *resolved) flush(ctx context.Context) {
	if err := r.tell(ctx, "FlushCaches"); err != nil {
		r.log.Info("systemd-resolved could not flush its cache", "err", err)
	}
}

// searched are the machine's own search domains.
func (r *resolved) searched(ctx context.Context) ([]string, error) {
	v, err := property(ctx, r.bus, resolvedName, resolvedPath, strings.TrimSuffix(resolvedManager, "."), "Domains")
	if err != nil {
		return nil, fmt.Errorf("read the search domains of this machine: %w", err)
	}
	var out []string
	list, _ := v.([][]any)
	for _, e := range list {
		if len(e) != 3 || len(out) == maxServers {
			continue
		}
		index, _ := e[0].(int32)
		domain, _ := e[1].(string)
		if route, _ := e[2].(bool); route || int(index) == r.ifindex || CheckDomain(domain) != nil {
			continue
		}
		out = append(out, domain)
	}
	return tidy(out), nil
}

func (r *resolved) tell(ctx context.Context, method string, args ...any) error {
	_, err := r.bus.call(ctx, resolvedName, resolvedPath, resolvedManager+method, args...)
	return err
}

// refused explains an error about missing permissions.
func refused(err error) error {
	for _, name := range []string{"AccessDenied", "InteractiveAuthorizationRequired", "AuthFailed"} {
		if isBusError(err, "org.freedesktop.DBus.Error."+name) {
			return fmt.Errorf("systemd-resolved refuses (%w): run as root, or add a polkit rule that allows this user org.freedesktop.resolve1.*; to leave the system's DNS alone use --os-dns=off", err)
		}
	}
	return err
}

// tooMany reports whether resolved rejected the list as too long.
func tooMany(err error) bool {
	return err != nil && (isBusError(err, "System.Error.E2BIG") || strings.Contains(err.Error(), "Argument list too long"))
}

func (r *resolved) unset(ctx context.Context) error {
	index, err := r.index(r.iface)
	if err != nil || index != r.ifindex {
		return nil // the interface is gone, and its settings with it
	}
	err = r.tell(ctx, "RevertLink", int32(index))
	if err == nil {
		err = r.tell(ctx, "FlushCaches")
	}
	if err != nil {
		// Either it does not run and has no settings of ours, or it hangs and drops
		// them with the interface.
		r.log.Info("systemd-resolved did not remove the settings", "interface", r.iface, "err", err)
	}
	return nil
}

// base returns the servers of all interfaces except ours, the global ones first.
func (r *resolved) base(ctx context.Context) ([]netip.AddrPort, error) {
	v, err := property(ctx, r.bus, resolvedName, resolvedPath, strings.TrimSuffix(resolvedManager, "."), "DNS")
	if err != nil {
		return nil, fmt.Errorf("read the resolvers of this machine: %w", err)
	}
	var out []netip.AddrPort
	list, _ := v.([][]any)
	for _, e := range list {
		if len(e) != 3 || len(out) == maxServers {
			continue
		}
		index, _ := e[0].(int32)
		raw, _ := e[2].([]byte)
		a, ok := netip.AddrFromSlice(raw)
		a = a.Unmap()
		if !ok || int(index) == r.ifindex || a == r.addr || a == stub || a == stubProxy {
			continue
		}
		if a.Is6() && a.IsLinkLocalUnicast() && index > 0 {
			a = a.WithZone(strconv.Itoa(int(index)))
		}
		if ap := netip.AddrPortFrom(a, 53); !slices.Contains(out, ap) {
			out = append(out, ap)
		}
	}
	return out, nil
}

func (r *resolved) intact(ctx context.Context) (bool, error) {
	index, err := r.index(r.iface)
	if err != nil || index != r.ifindex {
		return false, err
	}
	out, err := r.bus.call(ctx, resolvedName, resolvedPath, resolvedManager+"GetLink", int32(index))
	if err != nil || len(out) != 1 {
		return false, err
	}
	v, err := property(ctx, r.bus, resolvedName, fmt.Sprint(out[0]), resolvedLink, "DNS")
	if err != nil {
		return false, err
	}
	list, _ := v.([][]any)
	for _, e := range list {
		if len(e) == 2 {
			raw, _ := e[1].([]byte)
			if a, ok := netip.AddrFromSlice(raw); ok && a == r.addr {
				return r.sameSearch(ctx)
			}
		}
	}
	return false, nil
}

// errSearch says that the machine's search domains have changed.
var errSearch = errors.New("the machine's search domains have changed")

func (r *resolved) sameSearch(ctx context.Context) (bool, error) {
	if !r.behind {
		return true, nil
	}
	now, err := r.searched(ctx)
	if err == nil && !slices.Equal(now, r.others) {
		err = errSearch
	}
	return err == nil, err
}

func (r *resolved) close() {}
