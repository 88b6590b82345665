//go:build e2e

package main

import (
	"fmt"
	"slices"
	"strconv"

	"weft/scripts/e2e/lab"
)

// tunRelay compares two kernel interfaces whose nodes reach each other through
// the TLS relay only (two homes that let no UDP out) with plain wireguard-go's
// on a bridge, turn by turn. The processor time is that of both nodes and of
// the server, which is the relay.
func tunRelay(b *bench) {
	m := lab.NewMeshNoNodes(b, b.bin)
	m.Device.As, m.Laptop.As = lab.Root, lab.Root
	m.Device.Join(m.Server.NewKey().Token, "--tun", "weft0")
	m.Laptop.Up(m.Server.NewKey().Token, "--tun", "weft0")
	a, z := m.Host("a"), m.Host("z")
	plain := plainWireGuard(b, m.Lab, a, z)
	relay := &tunnel{name: "through the TLS relay, TUN - TUN", to: m.Device.Status().Self.IPv4, port: "5310",
		procs: []*lab.Proc{m.Server.Proc, m.Device.Proc, m.Laptop.Proc}}
	serveIperf(b, m.DeviceHome.Namespace, relay.port)
	ready(b, m.LaptopHome.Namespace, relay.to+":"+relay.port)
	from := map[*tunnel]*lab.Namespace{plain: a, relay: m.LaptopHome.Namespace}
	for _, flows := range []int{1, 4} {
		for _, way := range []string{"", "-R"} {
			rates, cpus := map[*tunnel][]float64{}, map[*tunnel][]float64{}
			for range b.runs {
				for _, t := range []*tunnel{plain, relay} {
					flags := append(slices.Clone(t.flags), "-P", strconv.Itoa(flows))
					if way != "" {
						flags = append(flags, way)
					}
					r := measure1(b, t.procs, func() float64 { return iperf(b, from[t], t.to, t.port, flags...) })
					rates[t], cpus[t] = append(rates[t], r.rate), append(cpus[t], r.cpu)
				}
			}
			for _, t := range []*tunnel{plain, relay} {
				held, rate := "", median(rates[t])/median(rates[plain])
				if t == relay {
					held = fmt.Sprintf("%.2f x; 0.3 / 0.5 x", rate)
				}
				b.row(fmt.Sprintf("%s, %d TCP %s", t.name, flows, way), "Mbit/s", rates[t], held)
				b.row("  processor seconds per GB, all of weft's processes", "s", cpus[t], fmt.Sprintf("%.2f x", median(cpus[t])/median(cpus[plain])))
			}
		}
	}
	for name, p := range map[string]*lab.Proc{"server": m.Server.Proc, "device": m.Device.Proc, "laptop": m.Laptop.Proc} {
		b.row("  memory after all that, "+name, "MB", []float64{float64(p.Usage().RSS) / 1e6}, "")
	}
}
