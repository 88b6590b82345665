//go:build e2e

package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"weft/scripts/e2e/lab"
)

// tunRelay compares two kernel interfaces whose nodes reach each other only through the
// relay connection (two homes that block UDP) with plain wireguard-go on a bridge. The
// processor time covers both nodes and the server, which is the relay.
func tunRelay(b *bench) {
	m := lab.NewMeshNoNodes(b, b.bin)
	m.Device.As, m.Laptop.As = lab.Root, lab.Root
	m.Device.Join(m.Server.NewKey().Token, "--tun", "weft0", "--os-dns", "off")
	m.Laptop.Up(m.Server.NewKey().Token, "--tun", "weft0", "--os-dns", "off")
	compareTUN(b, m.Lab, m.Host("a"), m.Host("z"), "through the TLS relay, TUN - TUN", "0.3 / 0.5 x",
		m.Laptop, m.Device, m.LaptopHome.Namespace, m.DeviceHome.Namespace, m.Server.Proc)
}

// tunDirect is tunRelay on one bridge, with whole nodes and not only the data path.
func tunDirect(b *bench) {
	l := lab.New(b, b.bin)
	host, a, z := l.Host("server"), l.Host("wa"), l.Host("wz")
	s := l.Serve(host, ":8443", "https://"+host.Addr+":8443")
	from, to := l.Node(a, "a"), l.Node(z, "z")
	from.As, to.As = lab.Root, lab.Root
	from.Join(s.NewKey().Token, "--tun", "weft0", "--os-dns", "off")
	to.Join(s.NewKey().Token, "--tun", "weft0", "--os-dns", "off")
	l.Until(30*time.Second, "a direct path", func() bool {
		return strings.Contains(from.Weft("ping", "-c", "1", "z").Out, "direct")
	})
	// wireguard-go gets separate hosts: between a and z its interfaces would be another
	// direct path that weft might use.
	compareTUN(b, l, l.Host("a"), l.Host("z"), "weft, TUN - TUN, direct", "0.95 / 1.1 x", from, to, a, z)
}

// compareTUN measures one and four flows, in both directions, in turns with plain
// wireguard-go between the hosts a and z.
func compareTUN(b *bench, l *lab.Lab, a, z *lab.Namespace, name, held string, from, to *lab.Node, fromHost, toHost *lab.Namespace, more ...*lab.Proc) {
	plain := plainWireGuard(b, l, a, z)
	weft := &tunnel{name: name, to: to.Status().Self.IPv4, port: "5310", procs: append(more, from.Proc, to.Proc)}
	serveIperf(b, toHost, weft.port)
	ready(b, fromHost, weft.to+":"+weft.port)
	hosts := map[*tunnel]*lab.Namespace{plain: a, weft: fromHost}
	for _, flows := range []int{1, 4} {
		for _, way := range [][]string{nil, {"-R"}} {
			rates, cpus := map[*tunnel][]float64{}, map[*tunnel][]float64{}
			for range b.runs {
				for _, t := range []*tunnel{plain, weft} {
					flags := slices.Concat(t.flags, []string{"-P", strconv.Itoa(flows)}, way)
					r := measure1(b, t.procs, func() float64 { return iperf(b, hosts[t], t.to, t.port, flags...) })
					rates[t], cpus[t] = append(rates[t], r.rate), append(cpus[t], r.cpu)
				}
			}
			for _, t := range []*tunnel{plain, weft} {
				against := fmt.Sprintf("%.2f x", median(rates[t])/median(rates[plain]))
				if t == weft {
					against += "; " + held
				}
				b.row(fmt.Sprintf("%s, %d TCP %s", t.name, flows, strings.Join(way, "")), "Mbit/s", rates[t], against)
				b.row("  processor seconds per GB, all of its processes", "s", cpus[t], fmt.Sprintf("%.2f x", median(cpus[t])/median(cpus[plain])))
			}
		}
	}
	for _, t := range []*tunnel{plain, weft} {
		rtts := roundTrips(b, hosts[t], t.to)
		b.row("round trip, "+t.name, "ms", rtts, "")
	}
	for _, p := range weft.procs {
		b.row("  memory after all that", "MB", []float64{float64(p.Usage().RSS) / 1e6}, "")
	}
}

// roundTrips connects by TCP to a port without a listener: the refusal takes one round
// trip of the tunnel and of both kernels.
func roundTrips(b *bench, from *lab.Namespace, to string) (ms []float64) {
	for range 200 {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		start := time.Now()
		c, err := from.Dial(ctx, "tcp", to+":4")
		took := time.Since(start)
		cancel()
		if err == nil {
			c.Close()
		} else if ctx.Err() != nil && took > 4*time.Second {
			b.Fatalf("round trip to %s: %v", to, err)
		}
		ms = append(ms, float64(took.Microseconds())/1000)
		time.Sleep(2 * time.Millisecond)
	}
	return ms
}
