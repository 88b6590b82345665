package webhook

import (
	"cmp"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"weft/overlay/special"
)

// MaxURL bounds a URL in bytes.
const MaxURL = 2048

// overlays are the addresses that overlay networks use, by default also this one.
var overlays = netip.MustParsePrefix("100.64.0.0/10")

// Targets says which addresses may be dialled. The zero value is the strictest.
type Targets struct {
	// Network are the overlay's own prefixes.
	Network []netip.Prefix
	// Allow are addresses that may be dialled whatever they are, also without TLS.
	Allow []netip.Prefix
}

// Check returns nil if an address may be dialled, or an error that says why not. plain says
// that the connection would not use TLS.
func (t Targets) Check(ip netip.Addr, plain bool) error {
	ip = ip.Unmap().WithZone("")
	if slices.ContainsFunc(t.Allow, func(p netip.Prefix) bool { return p.Contains(ip) }) {
		return nil
	}
	what := t.refused(ip)
	if v4, ok := special.Embedded(ip); ok && what == "" {
		if why := t.refused(v4); why != "" {
			what = "an address that leads to " + v4.String() + ", " + why
		}
	}
	if what == "" && plain {
		what = "asked for without TLS"
	}
	if what == "" {
		return nil
	}
	return fmt.Errorf("%s is %s; the network's owner can allow this address for the webhook (--allow-target %s, or the allowed addresses in the console)", ip, what, ip)
}

func (t Targets) refused(ip netip.Addr) string {
	if what := special.Kind(ip); what != "" {
		return what
	}
	if overlays.Contains(ip) || slices.ContainsFunc(t.Network, func(p netip.Prefix) bool { return p.Contains(ip) }) {
		return "an address of an overlay network"
	}
	return ""
}

// ParseTarget parses an address or a range of addresses that a webhook may use.
func ParseTarget(s string) (netip.Prefix, error) {
	if ip, err := netip.ParseAddr(s); err == nil && ip.Zone() == "" {
		ip = ip.Unmap()
		return netip.PrefixFrom(ip, ip.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	switch {
	case err != nil || p.Addr().Is4In6():
		return p, fmt.Errorf("want an address or a range of addresses, such as 192.168.1.5 or 192.168.1.0/24")
	case p.Addr().Is4() && p.Bits() < 8 || p.Addr().Is6() && p.Bits() < 16:
		return p, fmt.Errorf("this range is too large; want a smaller one, such as 192.168.1.0/24")
	}
	return p.Masked(), nil
}

// CheckURL returns an error for a URL to which events cannot be sent. If the host is an
// address it is checked too; the addresses of a name are checked when they are dialled.
func CheckURL(s string, t Targets) error {
	u, err := url.Parse(s)
	if err != nil || u.Opaque != "" || u.Hostname() == "" || u.Scheme != "https" && u.Scheme != "http" {
		return fmt.Errorf("want https://HOST/PATH")
	}
	port, err := strconv.ParseUint(cmp.Or(u.Port(), "1"), 10, 16)
	switch {
	case len(s) > MaxURL:
		return fmt.Errorf("longer than %d bytes", MaxURL)
	case u.User != nil:
		return fmt.Errorf("the URL has a user name or a password, which would not be sent; receivers check the signature instead")
	case err != nil || port == 0:
		return fmt.Errorf("port %s: want 1 to 65535", u.Port())
	case u.Fragment != "" || strings.Contains(s, "#"):
		return fmt.Errorf("the part after # is not sent; leave it out")
	case u.Scheme == "http" && len(t.Allow) == 0:
		return fmt.Errorf("without TLS others can read the events; use https, or have the network's owner allow the address (--allow-target ADDRESS, or the allowed addresses in the console)")
	}
	if ip, err := netip.ParseAddr(u.Hostname()); err == nil {
		return t.Check(ip, u.Scheme == "http")
	}
	return nil
}

// Origin returns the scheme and host of a URL, which everybody may see. The path and the query
// may be secret.
func Origin(s string) string {
	u, err := url.Parse(s)
	if err != nil {
		return ""
	}
	return u.Scheme + "://" + u.Host
}
