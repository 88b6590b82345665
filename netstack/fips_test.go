package netstack

import (
	"net/netip"
	"testing"

	"weft/overlay/fips/fipstest"
)

// An ACK for no connection makes gVisor check a SYN cookie, with SHA-1: where FIPS mode is
// enforced, any peer could end the program with one. It is answered with a reset.
func TestStrayACKInFIPSMode(t *testing.T) {
	if !fipstest.Only(t) {
		return
	}
	n := newNet(t, Config{}, addrA4, addrA6)
	for _, v6 := range []bool{false, true} {
		to := addrA4
		if v6 {
			to = addrA6
		}
		l, err := n.ListenTCP(netip.AddrPortFrom(to, 80))
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		const rst, ack = 1 << 2, 1 << 4
		if _, err := n.Write([][]byte{tcpPacket(v6, 4711, 80, 1, 1, ack, nil)}, 0); err != nil {
			t.Fatal(err)
		}
		bufs, sizes := make([][]byte, n.BatchSize()), make([]int, n.BatchSize())
		for i := range bufs {
			bufs[i] = make([]byte, 65535)
		}
		if _, err := n.Read(bufs, sizes, 0); err != nil {
			t.Fatal(err)
		}
		header := 20
		if v6 {
			header = 40
		}
		if flags := bufs[0][header+13]; flags&rst == 0 {
			t.Errorf("IPv6 %v: flags %b", v6, flags)
		}
	}
}
