package portmap

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"net/textproto"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// This package implements only the part of UPnP that a port mapping needs: a search by
// SSDP, one description, and three SOAP calls.

const ssdpPort = 1900

var ssdpGroup = netip.MustParseAddrPort("239.255.255.250:1900")

// searches are the SSDP searches for both versions of the gateway device.
var searches = [][]byte{search("urn:schemas-upnp-org:device:InternetGatewayDevice:1"), search("urn:schemas-upnp-org:device:InternetGatewayDevice:2")}

func search(target string) []byte {
	return []byte("M-SEARCH * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\nST: " + target + "\r\nMAN: \"ssdp:discover\"\r\nMX: 1\r\n\r\n")
}

// services are the types that can map ports, the best first.
var services = []string{
	"urn:schemas-upnp-org:service:WANIPConnection:2",
	"urn:schemas-upnp-org:service:WANIPConnection:1",
	"urn:schemas-upnp-org:service:WANPPPConnection:1",
}

const (
	maxBody     = 256 << 10
	maxText     = 1024
	maxServices = 16
	// httpTimeout bounds one request.
	httpTimeout = 3 * time.Second
)

// service is a target for SOAP calls; it is always on the gateway.
type service struct {
	typ     string
	control *url.URL
}

// parseSSDP returns the URL of the description from a reply to a search.
func parseSSDP(pkt []byte) (location string, ok bool) {
	head, rest, _ := bytes.Cut(pkt, []byte("\n"))
	if f := strings.Fields(string(head)); len(f) < 2 || !strings.HasPrefix(f[0], "HTTP/1.") || f[1] != "200" {
		return "", false
	}
	for line := range bytes.Lines(rest) {
		key, value, found := bytes.Cut(line, []byte(":"))
		if found && textproto.CanonicalMIMEHeaderKey(string(bytes.TrimSpace(key))) == "Location" {
			l := string(bytes.TrimSpace(value))
			return l, l != "" && len(l) <= maxText
		}
	}
	return "", false
}

// url accepts a URL only if it is on the gateway itself.
func (a *attempt) url(raw string) (*url.URL, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return nil, fmt.Errorf("UPnP address: %w", err)
	}
	return u, a.onGateway(u)
}

func (a *attempt) onGateway(u *url.URL) error {
	ip, err := netip.ParseAddr(u.Hostname())
	if u.Scheme != "http" || err != nil || ip.Unmap() != a.gateway || u.User != nil {
		return fmt.Errorf("the gateway's UPnP points elsewhere (%.60q)", u.Redacted())
	}
	return nil
}

// viaUPnP gets a mapping from the first service of a description that grants one.
func (a *attempt) viaUPnP(ctx context.Context, location string) (*mapping, error) {
	list, err := a.describe(ctx, location)
	if err != nil {
		return nil, err
	}
	for i := range list {
		m, merr := a.mapUPnP(ctx, &list[i])
		if merr == nil {
			return m, nil
		}
		if err == nil { // keep the error of the best service
			err = merr
		}
	}
	if err == nil {
		err = errors.New("the gateway's UPnP has no service for port mappings")
	}
	return nil, err
}

// describe fetches a description and returns its services for port mappings.
func (a *attempt) describe(ctx context.Context, location string) ([]service, error) {
	base, err := a.url(location)
	if err != nil {
		return nil, err
	}
	code, body, err := a.http(ctx, "GET", base, nil, nil)
	if err != nil {
		return nil, err
	}
	if code != http.StatusOK {
		return nil, fmt.Errorf("fetch the gateway's UPnP description: HTTP status %d", code)
	}
	var found []service
	for _, s := range parseServices(body) {
		// URLBase (UPnP 1.0) may name another port.
		ref := base
		if s.base != "" {
			if ref, err = a.url(s.base); err != nil {
				continue
			}
		}
		if u, err := ref.Parse(s.control); err == nil && a.onGateway(u) == nil {
			found = append(found, service{typ: s.typ, control: u})
		}
	}
	return found, nil
}

type described struct{ typ, control, base string }

// parseServices returns the services of a description that can map ports, in the order
// of preference.
func parseServices(body []byte) (out []described) {
	var cur described
	var base string
	var all []described
	walk(body, func(name, text string) {
		switch name {
		case "URLBase":
			base = text
		case "serviceType":
			cur.typ = text
		case "controlURL":
			cur.control = text
		case "service":
			if cur.control != "" && len(all) < maxServices {
				all = append(all, cur)
			}
			cur = described{}
		}
	})
	for _, typ := range services {
		for _, s := range all {
			if s.typ == typ {
				s.base = base
				out = append(out, s)
			}
		}
	}
	return out
}

// walk calls f at the end of each element with the text before it. Invalid XML is used
// up to the error: many gateways send it.
func walk(body []byte, f func(name, text string)) {
	d := xml.NewDecoder(bytes.NewReader(body))
	d.Strict = false
	d.CharsetReader = func(_ string, r io.Reader) (io.Reader, error) { return r, nil }
	var text []byte
	for {
		tok, err := d.RawToken()
		if err != nil {
			return
		}
		switch t := tok.(type) {
		case xml.StartElement:
			text = text[:0]
		case xml.CharData:
			text = append(text, t[:min(len(t), maxText-len(text))]...)
		case xml.EndElement:
			f(t.Name.Local, strings.TrimSpace(string(text)))
			text = text[:0]
		}
	}
}

// The errors of AddPortMapping after which another try can succeed.
const (
	upnpConflict      = 718 // the external port is taken
	upnpSamePort      = 724 // the external and internal ports must be equal
	upnpPermanentOnly = 725
)

// mapUPnP makes or renews a mapping.
func (a *attempt) mapUPnP(ctx context.Context, s *service) (*mapping, error) {
	got, _, err := a.soap(ctx, s, "GetExternalIPAddress", nil, "NewExternalIPAddress")
	if err != nil {
		return nil, err
	}
	ip, err := netip.ParseAddr(got)
	if err != nil {
		return nil, errors.New("the gateway has no external address (UPnP)")
	}
	external, life := a.wanted.Port(), lifetime
	if external == 0 {
		external = a.port
	}
	// Check it before the mapping is made: a useless address then leaves no mapping
	// behind.
	m, err := a.made(KindUPnP, netip.AddrPortFrom(ip, external), life)
	if err != nil {
		return nil, err
	}
	for range 4 {
		_, code, err := a.soap(ctx, s, "AddPortMapping", []string{
			"NewRemoteHost", "",
			"NewExternalPort", strconv.Itoa(int(external)),
			"NewProtocol", "UDP",
			"NewInternalPort", strconv.Itoa(int(a.port)),
			"NewInternalClient", a.self.String(),
			"NewEnabled", "1",
			"NewPortMappingDescription", "weft",
			"NewLeaseDuration", strconv.Itoa(int(life / time.Second)),
		}, "")
		switch {
		case err == nil:
			m.external, m.service = netip.AddrPortFrom(m.external.Addr(), external), s
			return m, nil
		case code == upnpPermanentOnly && life > 0:
			life = 0
		case code == upnpSamePort && external != a.port:
			external = a.port
		case code == upnpConflict:
			external = uint16(20000 + rand.IntN(40000))
		default:
			return nil, err
		}
	}
	return nil, errors.New("the gateway gives no external port (UPnP)")
}

// deleteUPnP removes the mapping of an external port.
func (a *attempt) deleteUPnP(ctx context.Context, s *service, external uint16) error {
	_, _, err := a.soap(ctx, s, "DeletePortMapping", []string{
		"NewRemoteHost", "", "NewExternalPort", strconv.Itoa(int(external)), "NewProtocol", "UDP",
	}, "")
	return err
}

// soap calls an action. args are alternating names and values; result is the element to
// return. code is the UPnP error code of a refusal.
func (a *attempt) soap(ctx context.Context, s *service, action string, args []string, result string) (value string, code int, err error) {
	var b bytes.Buffer
	fmt.Fprintf(&b, `<?xml version="1.0"?><s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/" s:encodingStyle="http://schemas.xmlsoap.org/soap/encoding/"><s:Body><u:%s xmlns:u="%s">`, action, s.typ)
	for i := 0; i+1 < len(args); i += 2 {
		fmt.Fprintf(&b, "<%s>%s</%s>", args[i], args[i+1], args[i]) // our own values need no escaping
	}
	fmt.Fprintf(&b, "</u:%s></s:Body></s:Envelope>", action)
	status, body, err := a.http(ctx, "POST", s.control, &b, http.Header{
		"Content-Type": {`text/xml; charset="utf-8"`},
		"SOAPAction":   {`"` + s.typ + "#" + action + `"`},
	})
	if err != nil {
		return "", 0, err
	}
	value, code = parseSOAP(body, result)
	if status != http.StatusOK || code != 0 {
		return "", code, fmt.Errorf("the gateway refuses (UPnP: %s, HTTP status %d, code %d)", action, status, code)
	}
	return value, 0, nil
}

// parseSOAP returns the text of one element, and the error code if there is one.
func parseSOAP(body []byte, result string) (value string, code int) {
	walk(body, func(name, text string) {
		switch name {
		case "errorCode":
			if n, err := strconv.ParseUint(text, 10, 16); err == nil {
				code = int(n)
			}
		case result:
			value = text
		}
	})
	return value, code
}

// http asks only the gateway: it always dials the gateway's address, whatever the URL
// says, and follows no redirects.
func (a *attempt) http(ctx context.Context, method string, u *url.URL, body io.Reader, head http.Header) (status int, answer []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, httpTimeout)
	defer cancel()
	port := uint64(80)
	if p := u.Port(); p != "" {
		if port, err = strconv.ParseUint(p, 10, 16); err != nil {
			return 0, nil, fmt.Errorf("UPnP address: %w", err)
		}
	}
	t := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return a.cfg.Dial(ctx, netip.AddrPortFrom(a.gateway, uint16(port)))
		},
		DisableKeepAlives:      true,
		DisableCompression:     true,
		MaxResponseHeaderBytes: 16 << 10,
	}
	defer t.CloseIdleConnections()
	c := http.Client{Transport: t, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), body)
	if err != nil {
		return 0, nil, fmt.Errorf("ask the gateway's UPnP: %w", err)
	}
	for k, v := range head {
		req.Header[k] = v
	}
	req.Header["User-Agent"] = []string{"weft UPnP/1.1"}
	resp, err := c.Do(req)
	if err != nil {
		return 0, nil, fmt.Errorf("ask the gateway's UPnP: %w", err)
	}
	defer resp.Body.Close()
	answer, err = io.ReadAll(io.LimitReader(resp.Body, maxBody))
	if err != nil && len(answer) == 0 {
		return 0, nil, fmt.Errorf("ask the gateway's UPnP: %w", err)
	}
	return resp.StatusCode, answer, nil
}
