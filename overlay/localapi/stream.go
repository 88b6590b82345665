package localapi

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"weft/overlay/limited"
	"weft/overlay/proxy/pipe"
	"weft/overlay/status"
)

// POST /v1/dial opens a connection over the overlay. On success the answer is 101 and
// the socket becomes that connection:
//
//	Upgrade: weft-stream     TCP: the bytes as they are; a half-close of the
//	                         socket is a half-close of the connection, both ways
//	Upgrade: weft-datagram   UDP: each datagram is a big-endian uint16 length
//	                         and that many bytes
const (
	upgradeStream   = "weft-stream"
	upgradeDatagram = "weft-datagram"
)

// dialTimeout bounds one connection attempt: lookup, introduction and the peer's
// answer.
const dialTimeout = 30 * time.Second

func (s *Server) dial(w http.ResponseWriter, r *http.Request) {
	network, addr := r.URL.Query().Get("network"), r.URL.Query().Get("addr")
	upgrade := upgradeStream
	switch network {
	case "tcp", "tcp4", "tcp6":
	case "udp", "udp4", "udp6":
		upgrade = upgradeDatagram
	default:
		s.failed(w, &status.Error{Kind: status.KindUsage, Message: "unknown network " + quote(network)})
		return
	}
	name, port, err := net.SplitHostPort(addr)
	if err == nil {
		name, err = status.CleanName(name)
	}
	if err != nil {
		s.failed(w, &status.Error{Kind: status.KindUsage, Message: "not NAME:PORT: " + quote(addr)})
		return
	}
	if r.Header.Get("Upgrade") != upgrade {
		s.failed(w, &status.Error{Kind: status.KindUsage, Message: "dial needs Upgrade: " + upgrade})
		return
	}

	ctx, cancel := withTimeout(r.Context(), dialTimeout)
	remote, err := s.node.DialContext(ctx, network, net.JoinHostPort(name, port))
	cancel()
	if err != nil {
		s.failed(w, err)
		return
	}
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		remote.Close()
		s.failed(w, err)
		return
	}
	conn.SetDeadline(time.Time{})
	_, err = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: "+upgrade+"\r\n\r\n")
	// The client may already have sent data. What the HTTP server has buffered goes
	// first; after that the bare socket is used, so that the kernel can splice. Closing
	// the outer connection releases the slot.
	early, _ := buffered.Reader.Peek(buffered.Reader.Buffered())
	if err == nil && len(early) > 0 && upgrade == upgradeStream {
		_, err = remote.Write(early)
	}
	if err != nil || !s.streams.add(conn, remote) {
		conn.Close()
		remote.Close()
		return
	}
	defer s.streams.remove(conn)
	defer conn.Close()
	bare := limited.Bare(conn)
	if upgrade == upgradeStream {
		pipe.Join(bare, remote)
		return
	}
	joinDatagrams(io.MultiReader(strings.NewReader(string(early)), bare), bare, remote)
}

// joinDatagrams copies datagrams between a framed stream and a connection that
// preserves datagram boundaries, until the stream ends or either fails.
func joinDatagrams(r io.Reader, stream net.Conn, packets net.Conn) {
	defer stream.Close() // in any case, so that the other direction ends
	defer packets.Close()
	wait := limited.Go(func() {
		defer stream.Close()
		buf := make([]byte, maxDatagram+2)
		for {
			n, err := packets.Read(buf[2:])
			if err != nil {
				// "Port unreachable" is about one datagram, not about the flow.
				if isRefused(err) {
					continue
				}
				return
			}
			binary.BigEndian.PutUint16(buf, uint16(n))
			if _, err := stream.Write(buf[:2+n]); err != nil {
				return
			}
		}
	})
	br := bufio.NewReaderSize(r, 4<<10)
	buf := make([]byte, maxDatagram)
	for {
		n, err := readDatagram(br, buf)
		if err != nil {
			break
		}
		if _, err := packets.Write(buf[:n]); err != nil && errors.Is(err, net.ErrClosed) {
			break
		}
	}
	packets.Close()
	stream.Close()
	wait()
}

// maxDatagram is the largest payload of a UDP datagram in bytes.
const maxDatagram = 65535 - 8 - 20

// readDatagram reads one framed datagram into buf, which has maxDatagram bytes.
func readDatagram(r io.Reader, buf []byte) (int, error) {
	var hdr [2]byte
	if _, err := io.ReadFull(r, hdr[:]); err != nil {
		return 0, err
	}
	n := int(binary.BigEndian.Uint16(hdr[:]))
	if n > len(buf) {
		return 0, fmt.Errorf("read datagram: %d bytes are too long for UDP", n)
	}
	if _, err := io.ReadFull(r, buf[:n]); err != nil {
		return 0, io.ErrUnexpectedEOF
	}
	return n, nil
}

// datagramConn is the client's end of a weft-datagram stream.
type datagramConn struct {
	net.Conn               // the socket
	r        *bufio.Reader // only Read uses it
	scratch  []byte        // only Read uses it

	mu  sync.Mutex // guards the following: one datagram is one write
	out []byte
}

// Read reads one datagram; bytes that do not fit into p are lost.
func (c *datagramConn) Read(p []byte) (int, error) {
	if c.scratch == nil {
		c.scratch = make([]byte, maxDatagram)
	}
	n, err := readDatagram(c.r, c.scratch)
	if err != nil {
		return 0, err
	}
	return copy(p, c.scratch[:n]), nil
}

// Write sends p as one datagram.
func (c *datagramConn) Write(p []byte) (int, error) {
	if len(p) > maxDatagram {
		return 0, fmt.Errorf("write datagram: %d bytes are too long for UDP", len(p))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.out = append(binary.BigEndian.AppendUint16(c.out[:0], uint16(len(p))), p...)
	if _, err := c.Conn.Write(c.out); err != nil {
		return 0, err
	}
	return len(p), nil
}

// streamSet are the hijacked connections of a server.
type streamSet struct {
	wg sync.WaitGroup

	mu     sync.Mutex // guards the following
	closed bool
	open   map[net.Conn]net.Conn
}

func (s *streamSet) init() { s.open = map[net.Conn]net.Conn{} }

// add returns false if the server is closed.
func (s *streamSet) add(local, remote net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.open[local] = remote
	s.wg.Add(1)
	return true
}

func (s *streamSet) remove(local net.Conn) {
	s.mu.Lock()
	delete(s.open, local)
	s.mu.Unlock()
	s.wg.Done()
}

func (s *streamSet) close() {
	s.mu.Lock()
	s.closed = true
	for local, remote := range s.open {
		local.Close()
		remote.Close()
	}
	s.mu.Unlock()
	s.wg.Wait()
}

// quote makes any string safe to print on one line.
func quote(s string) string {
	b, _ := json.Marshal(s)
	return string(b)
}
