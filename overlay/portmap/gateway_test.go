package portmap

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"weft/overlay/internal/overlaytest"
)

var (
	gwAddr   = netip.MustParseAddr("192.168.1.1")
	selfAddr = netip.MustParseAddr("192.168.1.10")
	wanAddr  = netip.MustParseAddr("198.51.100.7")
)

// router is a fake gateway that speaks some of the protocols.
type router struct {
	host              *overlaytest.Host
	pcp, natpmp, upnp bool
	onlyGroup         bool          // UPnP answers only multicast searches
	refuse            byte          // result code of PCP and NAT-PMP
	life              time.Duration // granted lifetime; 0: as requested
	answer            func(b []byte) []byte
	location          string
	description       func(w http.ResponseWriter)
	conflicts         int // number of external ports that are taken
	permanentOnly     bool
	ssdpFrom          *overlaytest.Host // another machine that answers searches
	mu                sync.Mutex
	external          netip.Addr
	mappings          map[uint16]entry // by external port
	requests          []string
	conns             []io.Closer
}

type entry struct {
	client  netip.Addr
	port    uint16
	expires time.Time // zero: never
	kind    Kind
}

func (r *router) start(t *testing.T, in *overlaytest.Net) {
	t.Helper()
	r.external = wanAddr
	r.mappings = map[uint16]entry{}
	r.host = in.Host("router", gwAddr.String())
	r.serveUDP(t, r.host, ":5351", r.pmp)
	if r.upnp {
		if r.location == "" {
			r.location = "http://192.168.1.1:5000/root.xml"
		}
		h := r.host
		if r.ssdpFrom != nil {
			h = r.ssdpFrom
		}
		r.serveUDP(t, h, ":1900", r.ssdp)
		l, err := r.host.Listen("tcp", ":5000")
		if err != nil {
			t.Fatal(err)
		}
		srv := &http.Server{Handler: http.HandlerFunc(r.serveHTTP)}
		go srv.Serve(l)
		r.conns = append(r.conns, srv)
	}
}

func (r *router) close() {
	for _, c := range r.conns {
		c.Close()
	}
}

func (r *router) serveUDP(t *testing.T, h *overlaytest.Host, addr string, handle func([]byte, netip.AddrPort) [][]byte) {
	t.Helper()
	conn, err := h.ListenPacket("udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	r.conns = append(r.conns, conn)
	go func() {
		buf := make([]byte, 1500)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			for _, out := range handle(buf[:n], from.(*net.UDPAddr).AddrPort()) {
				conn.WriteTo(out, from)
			}
		}
	}()
}

func (r *router) note(what string) { r.requests = append(r.requests, what) }

func (r *router) seen(what string) (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, q := range r.requests {
		if strings.HasPrefix(q, what) {
			n++
		}
	}
	return n
}

func (r *router) table() map[uint16]entry {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := map[uint16]entry{}
	for k, v := range r.mappings {
		if v.expires.IsZero() || time.Now().Before(v.expires) {
			out[k] = v
		}
	}
	return out
}

func (r *router) grant(client netip.Addr, port, want uint16, secs uint32, kind Kind) (external uint16, given uint32) {
	for k, e := range r.mappings {
		if e.client == client && e.port == port {
			want = k
			delete(r.mappings, k)
		}
	}
	if secs == 0 {
		return 0, 0
	}
	if r.life != 0 {
		secs = uint32(r.life / time.Second)
	}
	for r.conflicts > 0 || want == 0 {
		r.conflicts--
		want += 1001
	}
	r.mappings[want] = entry{client, port, time.Now().Add(time.Duration(secs) * time.Second), kind}
	return want, secs
}

func (r *router) pmp(b []byte, from netip.AddrPort) [][]byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.answer != nil {
		return [][]byte{r.answer(b)}
	}
	switch {
	case len(b) == 60 && b[0] == 2 && r.pcp:
		secs := binary.BigEndian.Uint32(b[4:])
		r.note(fmt.Sprintf("pcp %d", secs))
		out := bytes.Clone(b)
		out[1] |= 0x80
		if netip.AddrFrom16([16]byte(b[8:24])).Unmap() != from.Addr() {
			out[3] = 12
			return [][]byte{out}
		}
		if out[3] = r.refuse; r.refuse != 0 {
			return [][]byte{out}
		}
		ext, given := r.grant(from.Addr(), binary.BigEndian.Uint16(b[40:]), binary.BigEndian.Uint16(b[42:]), secs, KindPCP)
		binary.BigEndian.PutUint32(out[4:], given)
		binary.BigEndian.PutUint16(out[42:], ext)
		ip := r.external.As16()
		copy(out[44:], ip[:])
		return [][]byte{out}
	case len(b) > 0 && b[0] == 2 && r.natpmp:
		return [][]byte{{0, b[1] | 0x80, 0, 1, 0, 0, 0, 9}}
	case len(b) == 2 && b[0] == 0 && r.natpmp:
		r.note("nat-pmp address")
		ip := r.external.As4()
		return [][]byte{append([]byte{0, 128, 0, r.refuse, 0, 0, 0, 9}, ip[:]...)}
	case len(b) == 12 && b[0] == 0 && r.natpmp:
		secs := binary.BigEndian.Uint32(b[8:])
		r.note(fmt.Sprintf("nat-pmp %d", secs))
		if r.refuse != 0 {
			return [][]byte{{0, 129, 0, r.refuse, 0, 0, 0, 9, b[4], b[5], 0, 0, 0, 0, 0, 0}}
		}
		ext, given := r.grant(from.Addr(), binary.BigEndian.Uint16(b[4:]), binary.BigEndian.Uint16(b[6:]), secs, KindNATPMP)
		out := []byte{0, 129, 0, 0, 0, 0, 0, 9, b[4], b[5]}
		out = binary.BigEndian.AppendUint16(out, ext)
		return [][]byte{binary.BigEndian.AppendUint32(out, given)}
	}
	return nil
}

func (r *router) ssdp(b []byte, _ netip.AddrPort) [][]byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.note("ssdp")
	if !bytes.Contains(b, []byte("M-SEARCH")) {
		return nil
	}
	return [][]byte{[]byte("HTTP/1.1 200 OK\r\nCACHE-CONTROL: max-age=120\r\nST: urn:schemas-upnp-org:device:InternetGatewayDevice:1\r\nlocation: " + r.location + "\r\n\r\n")}
}

const goodDescription = `<?xml version="1.0"?>
<root xmlns="urn:schemas-upnp-org:device-1-0"><device><deviceType>urn:schemas-upnp-org:device:InternetGatewayDevice:1</deviceType>
<serviceList><service><serviceType>urn:schemas-upnp-org:service:Layer3Forwarding:1</serviceType><controlURL>/l3f</controlURL></service></serviceList>
<deviceList><device><serviceList>
<service><serviceType>urn:schemas-upnp-org:service:WANPPPConnection:1</serviceType><controlURL>/ppp</controlURL></service>
<service><serviceType>urn:schemas-upnp-org:service:WANIPConnection:1</serviceType><serviceId>x</serviceId><controlURL>/ctl</controlURL></service>
</serviceList></device></deviceList></device></root>`

func (r *router) serveHTTP(w http.ResponseWriter, q *http.Request) {
	body, _ := io.ReadAll(io.LimitReader(q.Body, 1<<20))
	r.mu.Lock()
	defer r.mu.Unlock()
	action := strings.Trim(q.Header.Get("SOAPAction"), `"`)
	_, action, _ = strings.Cut(action, "#")
	r.note(strings.TrimSpace("http " + q.URL.Path + " " + action))
	if q.Method == "GET" {
		if r.description != nil {
			r.description(w)
			return
		}
		io.WriteString(w, goodDescription)
		return
	}
	fail := func(code int) {
		w.WriteHeader(500)
		fmt.Fprintf(w, "<s:Envelope><s:Body><s:Fault><detail><UPnPError><errorCode>%d</errorCode></UPnPError></detail></s:Fault></s:Body></s:Envelope>", code)
	}
	if q.URL.Path != "/ctl" {
		fail(401)
		return
	}
	args := map[string]string{}
	walk(body, func(name, text string) { args[name] = text })
	number := func(key string) uint16 {
		var n uint16
		fmt.Sscan(args[key], &n)
		return n
	}
	ext := number("NewExternalPort")
	switch action {
	case "GetExternalIPAddress":
		fmt.Fprintf(w, "<s:Envelope><s:Body><u:R><NewExternalIPAddress>%s</NewExternalIPAddress></u:R></s:Body></s:Envelope>", r.external)
	case "AddPortMapping":
		if args["NewProtocol"] != "UDP" {
			fail(402)
			return
		}
		if r.permanentOnly && args["NewLeaseDuration"] != "0" {
			fail(725)
			return
		}
		if r.conflicts > 0 {
			r.conflicts--
			fail(718)
			return
		}
		e := entry{client: netip.MustParseAddr(args["NewInternalClient"]), port: number("NewInternalPort"), kind: KindUPnP}
		if secs := number("NewLeaseDuration"); secs != 0 {
			e.expires = time.Now().Add(time.Duration(secs) * time.Second)
		}
		r.mappings[ext] = e
		io.WriteString(w, "<s:Envelope/>")
	case "DeletePortMapping":
		delete(r.mappings, ext)
		io.WriteString(w, "<s:Envelope/>")
	default:
		fail(401)
	}
}

// home is a router, a machine behind it, and the machine's Mapper.
type home struct {
	t       *testing.T
	in      *overlaytest.Internet
	net     *overlaytest.NAT
	host    *overlaytest.Host
	router  *router
	m       *Mapper
	mu      sync.Mutex
	changes []Status
	dialled []netip.AddrPort
	gateway func() (gw, self netip.Addr, err error)
}

// newHome must be called inside a synctest bubble; end it with close.
func newHome(t *testing.T, r *router) *home {
	in := overlaytest.New(1)
	nat := in.NAT("home", overlaytest.PortRestricted, wanAddr.String())
	h := &home{t: t, in: in, net: nat, host: nat.Host("pi", selfAddr.String()), router: r}
	if r.onlyGroup {
		r.ssdpFrom = nat.Host("multicast", "192.168.1.200")
	}
	r.start(t, nat.Net)
	h.gateway = func() (gw, self netip.Addr, err error) { return gwAddr, selfAddr, nil }
	h.m = New(Config{
		Gateway: func() (gw, self netip.Addr, err error) {
			h.mu.Lock()
			defer h.mu.Unlock()
			return h.gateway()
		},
		Listen: func(netip.Addr) (net.PacketConn, error) { return h.host.ListenPacket("udp", ":0") },
		Dial: func(ctx context.Context, a netip.AddrPort) (net.Conn, error) {
			h.mu.Lock()
			h.dialled = append(h.dialled, a)
			h.mu.Unlock()
			return h.host.DialContext(ctx, "tcp", a.String())
		},
		Changed: func(s Status) {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.changes = append(h.changes, s)
		},
	})
	h.m.Start()
	return h
}

func (h *home) close() {
	h.m.Close()
	h.router.close()
	h.in.Close()
	for _, a := range h.dialled {
		if a.Addr() != gwAddr {
			h.t.Errorf("dialled %s, which is not the gateway", a)
		}
	}
}

// settle waits until the gateway has been asked.
func (h *home) settle() Status {
	h.t.Helper()
	for range 100 {
		time.Sleep(100 * time.Millisecond)
		if s := h.m.Status(); !s.Trying {
			return s
		}
	}
	h.t.Fatalf("still trying: %+v", h.m.Status())
	return Status{}
}
