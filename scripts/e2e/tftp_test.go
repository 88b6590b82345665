//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"weft/scripts/e2e/lab"
)

// The server answers each reader from a new port, and receives the acknowledgements
// there. No rule opens that port.
func TestTFTP(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, device, laptop, listen string }{
		{"user space to user space", "", "", "127.0.0.1"},
		{"TUN to user space", "", "weft0", "127.0.0.1"},
		{"TUN to TUN", "weft0", "weft0", "[::]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			m := lab.NewMeshNoNodes(t, bin)
			flags := func(n *lab.Node, dev string) []string {
				if dev == "" {
					return nil
				}
				n.As = lab.Root
				return []string{"--tun", dev, "--os-dns", "off"}
			}
			m.Device.Join(m.Server.Token, flags(m.Device, c.device)...)
			m.Laptop.Up(m.Server.NewKey().Token, flags(m.Laptop, c.laptop)...)
			file := bytes.Repeat([]byte("firmware"), 8000)
			serveTFTP(m.DeviceHome.Namespace, c.listen, file)
			d := m.Device.Status().Self
			for _, ip := range []string{d.IPv4, d.IPv6} {
				to := netip.AddrPortFrom(netip.MustParseAddr(ip), 69)
				at := ":0"
				var proxy net.Conn
				if c.laptop == "" {
					at = "127.0.0.1:0"
				}
				pc := m.LaptopHome.ListenPacket(at)
				if c.laptop == "" {
					var err error
					if pc, proxy, err = associate(m.LaptopHome.Namespace, pc); err != nil {
						t.Fatal(err)
					}
					defer proxy.Close()
				}
				got, err := readTFTP(pc, to)
				if err != nil || !bytes.Equal(got, file) {
					t.Errorf("from %s: %d of %d bytes, %v", ip, len(got), len(file), err)
				}
			}
		})
	}
}

const (
	tftpRead = 1 + iota
	_
	tftpData
	tftpAck
)

// serveTFTP serves one file on port 69 inside n until the test ends.
func serveTFTP(n *lab.Namespace, host string, file []byte) {
	main := n.ListenPacket(host + ":69")
	go func() {
		for {
			b := make([]byte, 1000)
			k, from, err := main.ReadFrom(b)
			if err != nil {
				return
			}
			if k < 2 || binary.BigEndian.Uint16(b) != tftpRead {
				continue
			}
			var pc net.PacketConn
			n.Do(func() { pc, err = net.ListenPacket("udp", host+":0") })
			if err != nil {
				return
			}
			go func() {
				defer pc.Close()
				rest := file
				for block := uint16(1); ; block++ {
					data := rest[:min(512, len(rest))]
					rest = rest[len(data):]
					out := binary.BigEndian.AppendUint16([]byte{0, tftpData}, block)
					if again(pc, from, append(out, data...), func(b []byte, _ net.Addr) bool {
						return len(b) == 4 && b[1] == tftpAck && binary.BigEndian.Uint16(b[2:]) == block
					}) != nil || len(data) < 512 {
						return
					}
				}
			}()
		}
	}()
}

// readTFTP reads the file. It requires all answers to come from one port other than 69.
func readTFTP(pc net.PacketConn, to netip.AddrPort) (file []byte, err error) {
	var server net.Addr = net.UDPAddrFromAddrPort(to)
	out := []byte("\x00\x01fw.bin\x00octet\x00")
	for block := uint16(1); ; block++ {
		var data []byte
		err := again(pc, server, out, func(b []byte, from net.Addr) bool {
			at := netip.MustParseAddrPort(from.String())
			if len(b) < 4 || b[1] != tftpData || binary.BigEndian.Uint16(b[2:]) != block || at.Addr().Unmap() != to.Addr() || at.Port() == to.Port() {
				return false
			}
			if block > 1 && from.String() != server.String() {
				return false
			}
			server, data = from, bytes.Clone(b[4:])
			return true
		})
		if err != nil {
			return file, fmt.Errorf("block %d: %w", block, err)
		}
		file = append(file, data...)
		out = binary.BigEndian.AppendUint16([]byte{0, tftpAck}, block)
		if len(data) < 512 {
			pc.WriteTo(out, server)
			return file, nil
		}
	}
}

// again sends out until the expected reply comes back.
func again(pc net.PacketConn, to net.Addr, out []byte, wanted func([]byte, net.Addr) bool) error {
	b := make([]byte, 2000)
	for range 10 {
		if _, err := pc.WriteTo(out, to); err != nil {
			return err
		}
		pc.SetReadDeadline(time.Now().Add(time.Second))
		for {
			k, from, err := pc.ReadFrom(b)
			if errors.Is(err, syscall.ECONNREFUSED) {
				continue
			} else if err != nil {
				break
			}
			if wanted(b[:k], from) {
				return nil
			}
		}
	}
	return errors.New("no answer")
}

// socksPackets is a UDP association, as a packet socket of a SOCKS5 client.
type socksPackets struct {
	net.PacketConn
	relay net.Addr
}

// associate requests an association from the proxy inside n; it lives as long as the
// connection.
func associate(n *lab.Namespace, pc net.PacketConn) (net.PacketConn, net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	c, err := n.Dial(ctx, "tcp", lab.Proxy)
	if err != nil {
		return nil, nil, err
	}
	io.WriteString(c, "\x05\x01\x00\x05\x03\x00\x01\x00\x00\x00\x00\x00\x00")
	reply := make([]byte, 2+10)
	if _, err := io.ReadFull(c, reply); err != nil || reply[3] != 0 {
		c.Close()
		return nil, nil, fmt.Errorf("associate: %x, %v", reply, err)
	}
	relay := netip.AddrPortFrom(netip.AddrFrom4([4]byte(reply[6:10])), binary.BigEndian.Uint16(reply[10:]))
	return &socksPackets{pc, net.UDPAddrFromAddrPort(relay)}, c, nil
}

func (s *socksPackets) WriteTo(b []byte, to net.Addr) (int, error) {
	ap := netip.MustParseAddrPort(to.String())
	out := []byte{0, 0, 0, 1}
	if ap.Addr().Is6() {
		out[3] = 4
	}
	out = binary.BigEndian.AppendUint16(append(out, ap.Addr().AsSlice()...), ap.Port())
	if _, err := s.PacketConn.WriteTo(append(out, b...), s.relay); err != nil {
		return 0, err
	}
	return len(b), nil
}

func (s *socksPackets) ReadFrom(b []byte) (int, net.Addr, error) {
	in := make([]byte, 2000)
	n, _, err := s.PacketConn.ReadFrom(in)
	if err != nil {
		return 0, nil, err
	}
	size := 4
	if in[3] == 4 {
		size = 16
	}
	ip, _ := netip.AddrFromSlice(in[4:][:size])
	head := 4 + size + 2
	return copy(b, in[head:n]), net.UDPAddrFromAddrPort(netip.AddrPortFrom(ip, binary.BigEndian.Uint16(in[head-2:]))), nil
}

// TCP's urgent byte stays in its place, through SOCKS and through a forward.
func TestUrgent(t *testing.T) {
	t.Parallel()
	m := lab.NewMesh(t, bin)
	l := m.DeviceHome.Listen("127.0.0.1:23")
	got := make(chan string, 1)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			b, _ := io.ReadAll(c)
			c.Close()
			got <- string(b)
		}
	}()
	m.LaptopHome.Start(m.Laptop.As, "weft", "forward", "--socket", m.Laptop.Sock, "2323:kitchen-pi:23")
	ctx, cancel := context.WithTimeout(t.Context(), 40*time.Second)
	defer cancel()
	for name, dial := range map[string]func() (net.Conn, error){
		"SOCKS":   func() (net.Conn, error) { return m.LaptopHome.SOCKS(ctx, lab.Proxy, "kitchen-pi:23") },
		"forward": func() (net.Conn, error) { return m.LaptopHome.Dial(ctx, "tcp", "127.0.0.1:2323") },
	} {
		var c net.Conn
		m.Until(20*time.Second, name, func() (ok bool) {
			var err error
			c, err = dial()
			return err == nil
		})
		c.Write([]byte("abc"))
		raw, err := c.(*net.TCPConn).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		raw.Write(func(fd uintptr) bool {
			_, err = unix.SendmsgN(int(fd), []byte("!"), nil, nil, unix.MSG_OOB)
			return true
		})
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			c.Write([]byte("def"))
		}
		c.(*net.TCPConn).CloseWrite()
		select {
		case s := <-got:
			if want := "abc!" + strings.Repeat("def", 3); s != want {
				t.Errorf("by %s: %q, want %q", name, s, want)
			}
		case <-ctx.Done():
			t.Fatalf("by %s: nothing came", name)
		}
		c.Close()
	}
}
