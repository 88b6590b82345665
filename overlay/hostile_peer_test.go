package overlay_test

import (
	"crypto/ecdsa"
	"crypto/tls"
	"encoding/binary"
	"encoding/json"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"weft/netstack"
	"weft/overlay"
	"weft/overlay/cert"
	"weft/overlay/internal/intro"
	"weft/overlay/relay"
)

// tapped is a node's network. The test puts packets in and sees what arrives.
type tapped struct {
	*netstack.Net
	out chan []byte

	mu sync.Mutex
	in [][]byte // mu guards it
}

func (n *tapped) Read(bufs [][]byte, sizes []int, offset int) (int, error) {
	select {
	case p := <-n.out:
		sizes[0] = copy(bufs[0][offset:], p)
		return 1, nil
	default:
		return n.Net.Read(bufs, sizes, offset)
	}
}

func (n *tapped) send(p []byte) {
	n.out <- p
	n.WakeRead()
}

func (n *tapped) Write(bufs [][]byte, offset int) (int, error) {
	n.mu.Lock()
	for _, b := range bufs {
		n.in = append(n.in, slices.Clone(b[offset:]))
	}
	n.mu.Unlock()
	return n.Net.Write(bufs, offset)
}

// saw reports whether a packet with this UDP payload has arrived.
func (n *tapped) saw(payload string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.ContainsFunc(n.in, func(p []byte) bool { return strings.HasSuffix(string(p), payload) })
}

// udp makes a datagram to port 9. Its checksum is 0: not computed.
func udp(src, dst netip.Addr, payload string) []byte {
	u := make([]byte, 8, 8+len(payload))
	binary.BigEndian.PutUint16(u, 9999)
	binary.BigEndian.PutUint16(u[2:], 9)
	binary.BigEndian.PutUint16(u[4:], uint16(8+len(payload)))
	u = append(u, payload...)
	if dst.Is4() {
		h := make([]byte, 20)
		h[0], h[8], h[9] = 0x45, 64, 17
		binary.BigEndian.PutUint16(h[2:], uint16(20+len(u)))
		copy(h[12:], src.AsSlice())
		copy(h[16:], dst.AsSlice())
		sum := uint32(0)
		for i := 0; i < 20; i += 2 {
			sum += uint32(binary.BigEndian.Uint16(h[i:]))
		}
		binary.BigEndian.PutUint16(h[10:], ^uint16(sum>>16+sum&0xffff))
		return append(h, u...)
	}
	h := make([]byte, 40)
	h[0], h[6], h[7] = 0x60, 17, 64
	binary.BigEndian.PutUint16(h[4:], uint16(len(u)))
	s, d := src.As16(), dst.As16()
	copy(h[8:], s[:])
	copy(h[24:], d[:])
	return append(h, u...)
}

// A peer sends from addresses other than its own: nothing of that comes out of the
// tunnel.
func TestForgedInnerSource(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	tap := func(n *node) *tapped {
		tp := &tapped{out: make(chan []byte, 1)}
		n.wrap = func(nw *netstack.Net) overlay.Net { tp.Net = nw; return tp }
		n.restart()
		return tp
	}
	victim, evil, third := w.node("victim"), w.node("evil"), w.node("third")
	in, out := tap(victim), tap(evil)
	victim.echo()
	// The third has a tunnel with the victim, so its address is known there.
	say(t, third.dial("tcp", "victim:7"), "hello")
	say(t, evil.dial("tcp", "victim:7"), "hello")
	v, e, th := victim.Status().Self, evil.Status().Self, third.Status().Self
	v4, v6 := netip.MustParseAddr(v.IPv4), netip.MustParseAddr(v.IPv6)
	mapped := netip.AddrFrom16(netip.MustParseAddr(th.IPv4).As16())
	forged := []string{th.IPv4, v.IPv4, "0.0.0.0", "224.0.0.1", "127.0.0.1", "255.255.255.255", "169.254.169.254", "8.8.8.8", "100.64.0.99",
		th.IPv6, v.IPv6, "::", "::1", "ff02::1", "fe80::1", "2001:db8::1"}
	for _, src := range forged {
		a := netip.MustParseAddr(src)
		dst := v4
		if a.Is6() {
			dst = v6
		}
		out.send(udp(a, dst, "from "+src+"."))
	}
	out.send(udp(mapped, v6, "from mapped."))
	// What it may send arrives after all of that, in order.
	out.send(udp(netip.MustParseAddr(e.IPv6), v6, "honest six."))
	out.send(udp(netip.MustParseAddr(e.IPv4), v4, "honest four."))
	eventually(t, 20*time.Second, "honest packets", func() bool { return in.saw("honest six.") && in.saw("honest four.") })
	for _, src := range append(forged, "mapped") {
		if in.saw("from " + src + ".") {
			t.Errorf("a packet from %s came in", src)
		}
	}
}

// rogue is a node made by the test: TLS over session frames, through the evil relay.
type rogue struct {
	e    *evilRelay
	id   cert.NodeID
	to   cert.NodeID
	in   chan []byte // frames
	sid  uint64
	seq  uint32
	rest []byte
	bye  func()
}

// rogue connects a node with this key to the evil relay, which accepts everybody.
func (e *evilRelay) rogue(key *ecdsa.PrivateKey, to cert.NodeID) *rogue {
	spki, err := cert.SPKI(&key.PublicKey)
	if err != nil {
		e.w.t.Fatal(err)
	}
	r := &rogue{e: e, id: cert.NodeIDOf(e.w.auth.ID, spki), to: to, in: make(chan []byte, 100), sid: uint64(time.Now().UnixNano())}
	e.mu.Lock()
	e.clients[r.id] = &evilClient{out: r.in}
	e.mu.Unlock()
	return r
}

func (r *rogue) Write(p []byte) (int, error) {
	f := binary.BigEndian.AppendUint64(nil, r.sid)
	f = binary.BigEndian.AppendUint32(f, r.seq)
	kind := byte(2)
	if r.seq == 0 {
		kind = introOpen
	}
	r.seq++
	r.e.carry(carried{r.id, r.to, relay.TypeSession, append(append(f, kind), p...)})
	return len(p), nil
}

func (r *rogue) Read(p []byte) (int, error) {
	for len(r.rest) == 0 {
		select {
		case f := <-r.in:
			if body := f[relay.HeadLen+relay.PeerLen:]; relay.Type(f[0]) == relay.TypeSession && len(body) > introKind {
				if body[introKind] == introReset {
					return 0, net.ErrClosed
				}
				r.rest = body[introKind+1:]
			}
		case <-time.After(3 * time.Second):
			return 0, io.EOF
		}
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

func (r *rogue) Close() error                     { return nil }
func (r *rogue) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (r *rogue) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (r *rogue) SetDeadline(time.Time) error      { return nil }
func (r *rogue) SetReadDeadline(time.Time) error  { return nil }
func (r *rogue) SetWriteDeadline(time.Time) error { return nil }

// A caller with a certificate of another CA or another network, an expired or revoked
// one, or without ML-KEM is refused, even through a relay that forwards everything.
func TestRogueCallers(t *testing.T) {
	t.Parallel()
	w := newWorldOf(t, setup{evil: true})
	pi, laptop := w.node("kitchen-pi", "device"), w.node("laptop")
	pi.echo()
	say(t, laptop.dial("tcp", "kitchen-pi:7"), "hello")
	self := laptop.Status().Self
	mine, err := w.svc.FindDevice(t.Context(), self.ID)
	if err != nil {
		t.Fatal(err)
	}
	owner, err := cert.ParseNode(w.auth.ID, mine.Certificate)
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := cert.NewCA("weft network CA", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	prefix6 := netip.MustParseAddr(self.IPv6).As16()
	prefix6[15] = 200
	attrs := cert.Attributes{Name: "rogue", FQDN: "rogue.weft.internal", User: owner.User,
		IPv4: netip.MustParseAddr("100.64.0.200"), IPv6: netip.AddrFrom16(prefix6)}
	sign := func(ca *cert.CA, change func(*cert.Attributes), from, to time.Duration) func(*ecdsa.PrivateKey) []byte {
		return func(key *ecdsa.PrivateKey) []byte {
			a := attrs
			if change != nil {
				change(&a)
			}
			der, err := ca.SignNode(&key.PublicKey, a, cert.NewSerial(), time.Now().Add(from), time.Now().Add(to))
			if err != nil {
				t.Fatal(err)
			}
			return der
		}
	}
	good := sign(w.auth.Network, nil, -time.Hour, time.Hour)
	hybrid := []tls.CurveID{tls.X25519MLKEM768}
	for name, c := range map[string]struct {
		sign   func(*ecdsa.PrivateKey) []byte
		curves []tls.CurveID
		alpn   string
		in     bool
	}{
		"as it should be":            {good, hybrid, "weft-intro/1", true},
		"another CA":                 {sign(stranger, nil, -time.Hour, time.Hour), hybrid, "weft-intro/1", false},
		"the server CA":              {sign(w.auth.Server, nil, -time.Hour, time.Hour), hybrid, "weft-intro/1", false},
		"expired":                    {sign(w.auth.Network, nil, -2*time.Hour, -time.Hour), hybrid, "weft-intro/1", false},
		"not yet valid":              {sign(w.auth.Network, nil, time.Hour, 2*time.Hour), hybrid, "weft-intro/1", false},
		"another's key":              {func(*ecdsa.PrivateKey) []byte { return mine.Certificate }, hybrid, "weft-intro/1", false},
		"the callee's own address":   {sign(w.auth.Network, func(a *cert.Attributes) { a.IPv4 = netip.MustParseAddr(pi.Status().Self.IPv4) }, -time.Hour, time.Hour), hybrid, "weft-intro/1", false},
		"an address held by another": {sign(w.auth.Network, func(a *cert.Attributes) { a.IPv4 = netip.MustParseAddr(self.IPv4) }, -time.Hour, time.Hour), hybrid, "weft-intro/1", false},
		"an address of the internet": {sign(w.auth.Network, func(a *cert.Attributes) { a.IPv4 = netip.MustParseAddr("8.8.8.8") }, -time.Hour, time.Hour), hybrid, "weft-intro/1", false},
		"another user":               {sign(w.auth.Network, func(a *cert.Attributes) { a.User = "mallory" }, -time.Hour, time.Hour), hybrid, "weft-intro/1", false},
		"a tagged device":            {sign(w.auth.Network, func(a *cert.Attributes) { a.Tags = []string{"device"} }, -time.Hour, time.Hour), hybrid, "weft-intro/1", false},
		"no ML-KEM":                  {good, []tls.CurveID{tls.X25519, tls.CurveP256}, "weft-intro/1", false},
		"another protocol":           {good, hybrid, "weft-relay/1", false},
	} {
		key, err := cert.NewKey()
		if err != nil {
			t.Fatal(err)
		}
		r := w.evil.rogue(key, pi.id())
		m, err := r.introduce(&tls.Config{
			MinVersion: tls.VersionTLS12, CurvePreferences: c.curves, NextProtos: []string{c.alpn}, InsecureSkipVerify: true,
			GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
				return &tls.Certificate{Certificate: [][]byte{c.sign(key)}, PrivateKey: key}, nil
			},
		})
		if in := err == nil && m.Type == intro.TypeAccept; in != c.in {
			t.Errorf("%s: %+v, %v", name, m, err)
		}
		if pi.tunnel("rogue") != c.in {
			t.Errorf("%s: tunnel: %v", name, !c.in)
		}
		if c.in {
			eventually(t, 20*time.Second, "the tunnel ends", func() bool { r.bye(); return !pi.tunnel("rogue") })
		}
	}
	say(t, laptop.dial("tcp", "kitchen-pi:7"), "after")
}

// introduce runs an introduction as caller and returns the verdict.
func (r *rogue) introduce(config *tls.Config) (m intro.Message, err error) {
	c := tls.Client(r, config)
	if err := c.Handshake(); err != nil {
		return m, err
	}
	if err := r.say(c, intro.Message{Type: intro.TypeHello, Boot: 1, Key: append(make([]byte, 31), 77)}); err != nil {
		return m, err
	}
	r.bye = func() { r.say(c, intro.Message{Type: intro.TypeBye}) }
	var n [2]byte
	if _, err := io.ReadFull(c, n[:]); err != nil {
		return m, err
	}
	b := make([]byte, binary.BigEndian.Uint16(n[:]))
	if _, err := io.ReadFull(c, b); err != nil {
		return m, err
	}
	return m, json.Unmarshal(b, &m)
}

func (r *rogue) say(c *tls.Conn, m intro.Message) error {
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	_, err = c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...))
	return err
}
