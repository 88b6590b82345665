package proxy

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"

	"weft/overlay/limited"
	"weft/overlay/proxy/pipe"
	"weft/overlay/status"
)

// Wire values of RFC 1928.
const (
	socksVersion = 5

	socksConnect   = 1
	socksAssociate = 3

	socksIPv4 = 1
	socksName = 3
	socksIPv6 = 4
)

// socksReply is the code in a SOCKS5 reply.
type socksReply byte

const (
	socksOK              socksReply = 0
	socksFailed          socksReply = 1
	socksNotAllowed      socksReply = 2
	socksNetUnreachable  socksReply = 3
	socksHostUnreachable socksReply = 4
	socksRefused         socksReply = 5
	socksExpired         socksReply = 6
	socksNoCommand       socksReply = 7
	socksNoAddressType   socksReply = 8
)

// socksRequest is a client's request.
type socksRequest struct {
	command byte
	host    string // a name or an address
	port    uint16
}

// replyError is a request that gets a reply with code.
type replyError struct {
	code socksReply
	text string
}

func (e *replyError) Error() string { return e.text }

// serveSOCKS is called after the version byte was read and the read deadline set.
func (p *Proxy) serveSOCKS(c net.Conn) {
	req, err := readSOCKS(c, c)
	var re *replyError
	switch {
	case errors.As(err, &re):
		writeReply(c, re.code, nil)
		return
	case err != nil:
		return
	}
	c.SetReadDeadline(time.Time{})
	if req.command == socksAssociate {
		p.associate(c, req)
		return
	}

	// If the client closes its end, the dial is canceled. Nothing else can be read from
	// it before the reply, unless it sends early.
	ctx, cancel := context.WithCancel(context.Background())
	watch := watchClose(c, cancel)
	remote, err := p.dial(ctx, "tcp", req.host, req.port)
	early, gone := watch.stop()
	cancel()
	if err != nil {
		p.cfg.Log.Debug("proxy: connect", "host", req.host, "port", req.port, "err", err)
		writeReply(c, replyFor(err), nil)
		return
	}
	if gone || writeReply(c, socksOK, remote.LocalAddr()) != nil {
		remote.Close()
		return
	}
	if len(early) > 0 {
		if _, err := remote.Write(early); err != nil {
			remote.Close()
			return
		}
	}
	p.join(c, remote, destination(req.host, req.port))
}

// join copies until both directions have ended; Close of the proxy ends it early. to is
// the destination of remote.
func (p *Proxy) join(c, remote net.Conn, to string) {
	p.count(to, 0, 1)
	defer p.count(to, 0, -1)
	if s, ok := c.(*sniffed); ok && len(s.first) == 0 {
		c = s.Conn
	}
	pipe.Join(c, remote)
}

// readSOCKS reads the greeting after its version byte, answers it, and reads the
// request: at most 255 + 262 bytes. A *replyError must be answered.
func readSOCKS(r io.Reader, w io.Writer) (socksRequest, error) {
	var b [262]byte
	if _, err := io.ReadFull(r, b[:1]); err != nil {
		return socksRequest{}, err
	}
	methods := b[1 : 1+int(b[0])]
	if _, err := io.ReadFull(r, methods); err != nil {
		return socksRequest{}, err
	}
	if !bytes.Contains(methods, []byte{0}) {
		w.Write([]byte{socksVersion, 0xff})
		return socksRequest{}, errors.New("the client offers only authentication methods with a password")
	}
	if _, err := w.Write([]byte{socksVersion, 0}); err != nil {
		return socksRequest{}, err
	}

	if _, err := io.ReadFull(r, b[:4]); err != nil {
		return socksRequest{}, err
	}
	if b[0] != socksVersion || b[2] != 0 {
		return socksRequest{}, fmt.Errorf("read SOCKS request: version %d, reserved %d", b[0], b[2])
	}
	req := socksRequest{command: b[1]}
	var err error
	req.host, req.port, err = readSOCKSAddr(r, b[3])
	if err != nil {
		return socksRequest{}, err
	}
	if req.command != socksConnect && req.command != socksAssociate {
		return socksRequest{}, &replyError{socksNoCommand, "command not supported"}
	}
	return req, nil
}

// readSOCKSAddr reads an address of the given type and a port.
func readSOCKSAddr(r io.Reader, typ byte) (string, uint16, error) {
	var b [257]byte
	n := 0
	switch typ {
	case socksIPv4:
		n = 4
	case socksIPv6:
		n = 16
	case socksName:
		if _, err := io.ReadFull(r, b[:1]); err != nil {
			return "", 0, err
		}
		n = int(b[0])
	default:
		return "", 0, &replyError{socksNoAddressType, "address type not supported"}
	}
	if _, err := io.ReadFull(r, b[:n+2]); err != nil {
		return "", 0, err
	}
	port := binary.BigEndian.Uint16(b[n:])
	if typ == socksName {
		return string(b[:n]), port, nil
	}
	ip, _ := netip.AddrFromSlice(b[:n])
	return ip.Unmap().String(), port, nil
}

// writeReply sends a reply; bound may be nil.
func writeReply(c net.Conn, code socksReply, bound net.Addr) error {
	b := []byte{socksVersion, byte(code), 0}
	c.SetWriteDeadline(time.Now().Add(10 * time.Second))
	_, err := c.Write(appendSOCKSAddr(b, bound))
	c.SetWriteDeadline(time.Time{})
	return err
}

// appendSOCKSAddr appends type, address and port; 0.0.0.0:0 if a is neither TCP nor
// UDP.
func appendSOCKSAddr(b []byte, a net.Addr) []byte {
	var ap netip.AddrPort
	if a != nil {
		ap, _ = netip.ParseAddrPort(a.String())
	}
	ip := ap.Addr().Unmap()
	switch {
	case ip.Is6():
		b = append(b, socksIPv6)
		b = append(b, ip.AsSlice()...)
	case ip.Is4():
		b = append(b, socksIPv4)
		b = append(b, ip.AsSlice()...)
	default:
		b = append(b, socksIPv4, 0, 0, 0, 0)
	}
	return binary.BigEndian.AppendUint16(b, ap.Port())
}

// replyFor is the reply code that fits err best.
func replyFor(err error) socksReply {
	switch kindOf(err) {
	case status.KindDenied:
		return socksNotAllowed
	case status.KindNotJoined, status.KindApproval:
		return socksNetUnreachable
	case status.KindUnknown, status.KindUnavailable, status.KindUnreachable, status.KindUsage:
		return socksHostUnreachable
	case status.KindRefused:
		return socksRefused
	case status.KindTimeout:
		return socksExpired
	default:
		return socksFailed
	}
}

// closeWatch detects that a client closed during a dial.
type closeWatch struct {
	c     net.Conn
	wait  func()
	early []byte
	gone  bool
}

// watchClose reads from c in the background until stop; a failed read calls cancel. It
// keeps up to 4 KB that the client sends early for stop to return.
func watchClose(c net.Conn, cancel func()) *closeWatch {
	w := &closeWatch{c: c}
	w.wait = limited.Go(func() {
		buf := make([]byte, 4<<10)
		n, err := c.Read(buf)
		w.early = buf[:n]
		if err != nil && !isTimeout(err) && n == 0 {
			// A half-close before the reply counts as closed: there is nothing to send
			// through the tunnel.
			w.gone = true
			cancel()
		}
	})
	return w
}

// stop ends the watch and returns what the client sent in the meantime.
func (w *closeWatch) stop() (early []byte, gone bool) {
	w.c.SetReadDeadline(time.Unix(1, 0))
	w.wait()
	w.c.SetReadDeadline(time.Time{})
	return w.early, w.gone
}

func isTimeout(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}
