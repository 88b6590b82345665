package dns

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"github.com/miekg/dns"
)

// dataOf is a record's data as text.
func dataOf(rr dns.RR) string { return strings.TrimPrefix(rr.String(), rr.Header().String()) }

// makeRecord parses a record's value.
func makeRecord(name, typ, value, apex string) (dns.RR, error) {
	if len(value) > 4096 || value == "" {
		return nil, errors.New("value: want 1 to 4096 letters")
	}
	hdr := dns.RR_Header{Name: name, Class: dns.ClassINET, Rrtype: dns.StringToType[typ]}
	bad := func(want string) error { return fmt.Errorf("value %.60q: want %s", value, want) }
	f := strings.Fields(value)
	numbers := func(want string, n int) ([]uint16, string, error) {
		if len(f) != n+1 {
			return nil, "", bad(want)
		}
		var out []uint16
		for _, s := range f[:n] {
			v, err := strconv.ParseUint(s, 10, 16)
			if err != nil {
				return nil, "", bad(want)
			}
			out = append(out, uint16(v))
		}
		if f[n] == "." {
			return out, ".", nil
		}
		target, err := fullName(f[n], apex)
		return out, target, err
	}
	switch typ {
	case "A", "AAAA":
		ip, err := netip.ParseAddr(value)
		if err != nil || ip.Zone() != "" || ip.Is4() != (typ == "A") || ip.Is4In6() {
			return nil, bad("an IPv4 address for A, an IPv6 address for AAAA")
		}
		if typ == "A" {
			return &dns.A{Hdr: hdr, A: ip.AsSlice()}, nil
		}
		return &dns.AAAA{Hdr: hdr, AAAA: ip.AsSlice()}, nil
	case "CNAME", "PTR":
		target, err := fullName(value, apex)
		if err != nil {
			return nil, err
		}
		if typ == "PTR" {
			return &dns.PTR{Hdr: hdr, Ptr: target}, nil
		}
		return &dns.CNAME{Hdr: hdr, Target: target}, nil
	case "MX":
		n, target, err := numbers("PREFERENCE NAME, for example 10 mail", 1)
		if err != nil {
			return nil, err
		}
		return &dns.MX{Hdr: hdr, Preference: n[0], Mx: target}, nil
	case "SRV":
		n, target, err := numbers("PRIORITY WEIGHT PORT NAME, for example 0 5 443 kitchen-pi", 3)
		if err != nil {
			return nil, err
		}
		return &dns.SRV{Hdr: hdr, Priority: n[0], Weight: n[1], Port: n[2], Target: target}, nil
	}
	// TXT: strings of at most 255 bytes. The library treats a backslash as an escape.
	txt := &dns.TXT{Hdr: hdr}
	for len(value) > 0 {
		n := min(len(value), 255)
		txt.Txt = append(txt.Txt, strings.ReplaceAll(value[:n], `\`, `\\`))
		value = value[n:]
	}
	return txt, nil
}

// parseServer parses a Nameserver.
func parseServer(n Nameserver) (serverAddr, error) {
	if len(n.Address) > 512 || len(n.Bootstrap) > MaxNameservers {
		return serverAddr{}, errors.New("address: too long")
	}
	if a, ok := parseNameserver(n.Address); ok {
		return serverAddr{proto: "udp", addr: a}, nil
	}
	bad := fmt.Errorf("address %.60q: want IP, IP:PORT, tls://HOST or https://HOST/PATH", n.Address)
	u, err := url.Parse(n.Address)
	if err != nil || u.Host == "" || u.User != nil || u.Fragment != "" {
		return serverAddr{}, bad
	}
	a := serverAddr{proto: u.Scheme, host: strings.ToLower(u.Hostname())}
	switch u.Scheme {
	case "tls":
		a.port = 853
		if strings.Trim(u.Path, "/") != "" || u.RawQuery != "" {
			return serverAddr{}, bad
		}
	case "https":
		a.port = 443
		// A URI template's variable (RFC 8484) is only for GET; we use POST.
		u.Path = strings.TrimSuffix(u.Path, "{?dns}")
		u.RawPath = ""
		a.url = u.String()
	default:
		return serverAddr{}, bad
	}
	if p := u.Port(); p != "" {
		v, err := strconv.ParseUint(p, 10, 16)
		if err != nil || v == 0 {
			return serverAddr{}, bad
		}
		a.port = uint16(v)
	}
	if ip, err := netip.ParseAddr(a.host); err == nil {
		a.boot = []netip.Addr{ip.Unmap()}
	} else if a.host, err = asciiName(strings.TrimSuffix(a.host, ".")); err != nil {
		return serverAddr{}, bad
	}
	for _, b := range n.Bootstrap {
		ip, err := netip.ParseAddr(b)
		if err != nil {
			return serverAddr{}, fmt.Errorf("bootstrap %.40q: want an IP address", b)
		}
		a.boot = append(a.boot, ip.Unmap())
	}
	return a, nil
}
