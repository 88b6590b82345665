package ops

import (
	"context"
	"fmt"
	"net/netip"
	"sync/atomic"
	"testing"

	"weft/coord/store"
	"weft/overlay/cert"
)

// BenchmarkFollowers is one device that comes or goes while 50 consoles follow all devices:
// what it costs until all of them have read the event.
func BenchmarkFollowers(b *testing.B) {
	const devices, consoles = 1000, 50
	s := openSite(b, func(o *Options) { o.Log = nil })
	preload(b, s, devices)
	var ids []cert.NodeID
	err := s.store.Read(b.Context(), func(r *store.Reader) error {
		return r.EachNode(s.network, "", func(n store.Node) error { ids = append(ids, n.ID); return nil })
	})
	if err != nil {
		b.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	go s.Run(ctx)
	var read atomic.Int64
	all := make(chan struct{}, 1)
	for range consoles {
		events := s.hears(s.owner(), Interest{Every: true})
		go func() {
			for range events {
				if read.Add(1)%consoles == 0 {
					all <- struct{}{}
				}
			}
		}()
	}
	before, conn := cpu(), uint64(0)
	for b.Loop() {
		conn++
		s.Presence(ids[(conn-1)%devices], conn, (conn-1)/devices%2 == 0, s.clock.Now(), netip.MustParseAddr("192.0.2.1"))
		<-all
	}
	b.ReportMetric(float64((cpu()-before).Microseconds())/float64(b.N), "cpu-us/op")
}

// BenchmarkListedAgain is a list that a filter narrows, after each rename of one device.
func BenchmarkListedAgain(b *testing.B) {
	for _, devices := range []int{5000, 50_000} {
		b.Run(fmt.Sprintf("devices=%d", devices), func(b *testing.B) {
			s := openSite(b, func(o *Options) { o.Log = nil })
			preload(b, s, devices)
			var id cert.NodeID
			err := s.EachDevice(b.Context(), "", func(n store.Node) error { id = n.ID; return nil })
			if err != nil {
				b.Fatal(err)
			}
			owner, ctx := s.owner(), Passive(b.Context())
			list := func() DeviceList {
				l, err := s.Devices(ctx, owner, DeviceQuery{Filter: "renamed", Limit: 50})
				if err != nil {
					b.Fatal(err)
				}
				return l
			}
			list()
			before, n := cpu(), 0
			for b.Loop() {
				n++
				name := fmt.Sprint("renamed-", n)
				if err := s.store.Write(b.Context(), func(tx *store.Tx) error {
					return tx.SetSeen(s.network, nil) // a commit that changes no device
				}); err != nil {
					b.Fatal(err)
				}
				if _, err := s.RenameDevice(b.Context(), id, name); err != nil {
					b.Fatal(err)
				}
				if l := list(); l.Total != 1 || l.Devices[0].Name != name {
					b.Fatalf("%+v", l)
				}
			}
			b.ReportMetric(float64((cpu()-before).Microseconds())/float64(b.N), "cpu-us/op")
			s.Close()
		})
	}
}
