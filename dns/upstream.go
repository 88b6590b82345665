package dns

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

// resend is the time after which a question is sent again over UDP.
const resend = time.Second

// upstream is one resolver, over any transport. Its connections close some time after
// the last question.
type upstream struct {
	// Constant.
	addr serverAddr
	f    *forwarder
	doh  *doh            // https
	life context.Context // canceled when the upstream is no longer to be asked
	end  context.CancelFunc

	asked, answered, failed atomic.Uint64
	lastRTT                 atomic.Int64 // nanoseconds, 0 until known
	lastError               atomic.Pointer[string]
	looped                  atomic.Bool
	probed                  atomic.Bool // whether a loop probe was sent since the last change of the network

	opening chan struct{} // tls: a slot for the goroutine that opens the connection
	mu      sync.Mutex
	stream  *stream // tls; guarded by mu
}

func (u *upstream) String() string { return u.addr.String() }

var errLoop = errors.New("its answers come from this resolver itself")

// ask sends the question of m and returns the matching answer.
func (u *upstream) ask(ctx context.Context, m *dns.Msg) (*dns.Msg, error) {
	if u.looped.Load() {
		return nil, fmt.Errorf("ask %s: %w", u, errLoop)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(u.life, cancel)()
	u.asked.Add(1)
	begin := time.Now()
	var r *dns.Msg
	var err error
	switch u.addr.proto {
	case "tls":
		r, err = u.askTLS(ctx, m)
	case "https":
		r, err = u.doh.ask(ctx, m)
	default:
		r, err = u.askPlain(ctx, m)
	}
	switch {
	case err == nil:
		u.answered.Add(1)
		u.lastRTT.Store(int64(time.Since(begin)))
		u.lastError.Store(nil)
	case u.looped.Load():
		err = fmt.Errorf("ask %s: %w", u, errLoop)
	case ctx.Err() == nil || errors.Is(ctx.Err(), context.DeadlineExceeded):
		u.failed.Add(1)
		text := err.Error()
		u.lastError.Store(&text)
	}
	return r, err
}

// drop aborts questions in progress and closes connections. The upstream is not asked
// any more.
func (u *upstream) drop() {
	u.end()
	if u.doh != nil {
		u.doh.drop()
	}
}

// askPlain asks over UDP, and over TCP if the answer is truncated.
func (u *upstream) askPlain(ctx context.Context, m *dns.Msg) (*dns.Msg, error) {
	r, err := u.askUDP(ctx, m)
	// Very old servers do not accept an OPT.
	if err == nil && r.Rcode == dns.RcodeFormatError && r.IsEdns0() == nil && len(m.Extra) > 0 {
		bare := m.Copy()
		bare.Extra = nil
		r, err = u.askUDP(ctx, bare)
	}
	if err == nil && r.Truncated {
		if full, terr := u.askTCP(ctx, m); terr == nil {
			return full, nil
		}
		// A truncated answer means "ask over TCP", which has just failed.
		return nil, fmt.Errorf("%s: the answer is too large for UDP and TCP failed", u)
	}
	return r, err
}

// askUDP sends m with a fresh id from a fresh, connected socket (RFC 5452) and waits
// for the matching answer, ignoring others.
func (u *upstream) askUDP(ctx context.Context, m *dns.Msg) (*dns.Msg, error) {
	conn, err := u.f.dial(ctx, "udp", u.addr.addr)
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", u, err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()

	id := newID()
	out, err := packWith(m, id)
	if err != nil {
		return nil, err
	}
	buf := make([]byte, 4096)
	for {
		if _, err := conn.Write(out); err != nil {
			return nil, fmt.Errorf("ask %s: %w", u, err)
		}
		conn.SetReadDeadline(time.Now().Add(resend))
		for {
			n, err := conn.Read(buf)
			if err != nil {
				var ne net.Error
				if ctx.Err() == nil && errors.As(err, &ne) && ne.Timeout() {
					break // send it again
				}
				if ctx.Err() != nil {
					return nil, fmt.Errorf("ask %s: no answer in time", u)
				}
				return nil, fmt.Errorf("ask %s: %w", u, err)
			}
			r := new(dns.Msg)
			if !matches(buf[:n], id, m.Question[0], r) {
				continue
			}
			return r, nil
		}
	}
}

// askTCP asks over TCP.
func (u *upstream) askTCP(ctx context.Context, m *dns.Msg) (*dns.Msg, error) {
	conn, err := u.f.dial(ctx, "tcp", u.addr.addr)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	id := newID()
	out, err := packWith(m, id)
	if err != nil {
		return nil, err
	}
	if _, err := conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(out))), out...)); err != nil {
		return nil, err
	}
	c := dns.Conn{Conn: conn}
	buf, err := c.ReadMsgHeader(nil)
	if err != nil {
		return nil, err
	}
	r := new(dns.Msg)
	if !matches(buf, id, m.Question[0], r) {
		return nil, errors.New("the answer is for another question")
	}
	return r, nil
}

func newID() uint16 {
	var b [2]byte
	rand.Read(b[:])
	return binary.BigEndian.Uint16(b[:])
}

// packWith packs m with another id without changing m: several upstreams are asked at
// once, and packing writes into an OPT.
func packWith(m *dns.Msg, id uint16) ([]byte, error) {
	out, err := m.Copy().Pack()
	if err != nil {
		return nil, err
	}
	binary.BigEndian.PutUint16(out, id)
	return out, nil
}

// matches unpacks b into r if it answers the question with this id. A truncated message
// may not unpack as a whole; then its header and question are enough.
func matches(b []byte, id uint16, q dns.Question, r *dns.Msg) bool {
	if len(b) < 12 || binary.BigEndian.Uint16(b) != id {
		return false
	}
	if err := r.Unpack(b); err != nil && !(r.Truncated && len(r.Question) == 1) {
		return false
	}
	return r.Response && r.Opcode == dns.OpcodeQuery && len(r.Question) == 1 &&
		r.Question[0].Qtype == q.Qtype && r.Question[0].Qclass == q.Qclass &&
		strings.EqualFold(r.Question[0].Name, q.Name)
}

// dialHost connects to an upstream's host over TCP: to its known addresses one after
// the other, with one second each, or to the addresses from the machine's own
// resolvers.
func (f *forwarder) dialHost(ctx context.Context, a *serverAddr) (net.Conn, error) {
	ips := a.boot
	if len(ips) == 0 {
		var err error
		if ips, err = f.lookup(ctx, a.host); err != nil {
			return nil, err
		}
	}
	var last error
	for i, ip := range ips {
		cctx, cancel := ctx, context.CancelFunc(func() {})
		if i < len(ips)-1 {
			cctx, cancel = context.WithTimeout(ctx, time.Second)
		}
		c, err := f.dial(cctx, "tcp", netip.AddrPortFrom(ip, a.port))
		cancel()
		if err == nil {
			return c, nil
		}
		last = err
		if ctx.Err() != nil {
			break
		}
	}
	return nil, last
}
