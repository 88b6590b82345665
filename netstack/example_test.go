package netstack_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/netip"

	"weft/netstack"
)

// Two networks, joined here by copying packets where wireguard-go would carry
// them through a tunnel: a program behind one dials a program behind the other.
func Example() {
	pi, laptop := node("100.64.0.1"), node("100.64.0.2")
	defer pi.Close()
	defer laptop.Close()
	go tunnel(pi, laptop)
	go tunnel(laptop, pi)

	l, err := pi.ListenTCP(netip.MustParseAddrPort("100.64.0.1:80"))
	if err != nil {
		log.Fatal(err)
	}
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		io.WriteString(c, "hello from "+c.LocalAddr().String())
		c.Close()
	}()

	c, err := laptop.DialContext(context.Background(), "tcp", "100.64.0.1:80")
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	b, _ := io.ReadAll(c)
	fmt.Println(string(b))
	// Output: hello from 100.64.0.1:80
}

func node(addr string) *netstack.Net {
	n, err := netstack.New(netstack.Config{})
	if err != nil {
		log.Fatal(err)
	}
	if err := n.SetAddrs(netip.MustParseAddr(addr), netip.Addr{}); err != nil {
		log.Fatal(err)
	}
	return n
}

func tunnel(from, to *netstack.Net) {
	buf, sizes := [][]byte{make([]byte, 65535)}, []int{0}
	for {
		if _, err := from.Read(buf, sizes, 0); err != nil {
			return
		}
		to.Write([][]byte{buf[0][:sizes[0]]}, 0)
	}
}
