package coord

import (
	"net"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"weft/overlay/stun"
)

// On a machine of several addresses each port answers from the address that was
// asked; from another one a NAT would not let the answer in.
func TestAnswersFromTheAddressAsked(t *testing.T) {
	hosts := []string{"127.0.0.1", "127.0.0.2", "127.9.9.9"}
	if runtime.GOOS != "linux" {
		hosts = hosts[:1] // no other addresses of the interface
	}
	for _, listen := range []string{"0.0.0.0:0", ":0"} {
		var s *Server
		for range 5 { // the next port may be somebody's
			if s = startServer(t, func(o *ServerOptions) { o.STUN = Address{Addr: listen, Explicit: true} }); len(s.udp) == 2 {
				break
			}
		}
		if len(s.udp) != 2 {
			t.Fatalf("%d UDP ports on %s, want two", len(s.udp), listen)
		}
		hosts := hosts
		if listen == ":0" {
			hosts = append(hosts[:len(hosts):len(hosts)], "::1")
		}
		for _, p := range s.udp {
			for _, host := range hosts {
				to := netip.AddrPortFrom(netip.MustParseAddr(host), p.LocalAddr().(*net.UDPAddr).AddrPort().Port())
				asks(t, to)
			}
		}
	}
}

// asks sends a STUN request and takes an answer from that address alone.
func asks(t *testing.T, to netip.AddrPort) {
	t.Helper()
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(to))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	tx, buf := stun.TxID{1, 2, 3}, make([]byte, 1500)
	for range 10 { // a datagram may be lost
		if _, err := c.Write(stun.AppendRequest(nil, tx)); err != nil {
			t.Fatal(err)
		}
		c.SetReadDeadline(time.Now().Add(time.Second))
		n, err := c.Read(buf)
		if err != nil {
			continue
		}
		got, mapped, err := stun.ParseResponse(buf[:n])
		if err != nil || got != tx || mapped.String() != c.LocalAddr().String() {
			t.Errorf("%s answers %v %v, %v", to, got, mapped, err)
		}
		return
	}
	t.Errorf("%s does not answer from there", to)
}
