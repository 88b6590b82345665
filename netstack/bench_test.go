package netstack

import (
	"fmt"
	"io"
	"net/netip"
	"testing"
	"time"
)

// BenchmarkTCP is the throughput of one connection between two networks in one
// process, through Read and Write but without any cipher.
func BenchmarkTCP(b *testing.B) {
	for _, seg := range []int{1228, 16 << 10, 32 << 10, 60 << 10} {
		b.Run(fmt.Sprint(seg), func(b *testing.B) {
			p := newPair(b, Config{MaxSegment: seg}, nil, nil)
			l, err := p.b.ListenTCP(netip.AddrPort{})
			if err != nil {
				b.Fatal(err)
			}
			done := make(chan struct{})
			go func() {
				defer close(done)
				c, err := l.Accept()
				if err == nil {
					io.Copy(io.Discard, c)
				}
			}()
			c, err := p.a.DialAddrPort(within(b, 5*time.Second), "tcp", netip.MustParseAddrPort(fmt.Sprintf("%s:%s", addrB4, portOf(l.Addr()))))
			if err != nil {
				b.Fatal(err)
			}
			buf := make([]byte, copySize)
			b.SetBytes(int64(len(buf)))
			b.ReportAllocs()
			b.ResetTimer()
			for b.Loop() {
				if _, err := c.Write(buf); err != nil {
					b.Fatal(err)
				}
			}
			c.Close()
			<-done
		})
	}
}
