//go:build e2e

package main

import (
	"os"
	"time"

	"weft/scripts/e2e/lab"
)

// idle measures the cost of a joined node that is not used.
func idle(b *bench) {
	d, err := time.ParseDuration(os.Getenv("BENCH_IDLE"))
	if err != nil {
		d = 2 * time.Minute
	}
	m := lab.NewMesh(b, b.bin)
	page(b, m.Laptop, time.Now())
	home := m.Home("idle")
	fresh := m.Node(home.Namespace, "fresh")
	fresh.Join(m.Server.NewKey("--tag", "device").Token)
	time.Sleep(20 * time.Second)
	type at struct {
		u     lab.Usage
		bytes uint64
	}
	nodes := []struct {
		name string
		n    *lab.Node
	}{{"device, just joined", fresh}, {"device with an idle tunnel", m.Device}, {"laptop with an idle tunnel", m.Laptop}}
	read := func(n *lab.Node) at {
		rx, tx := n.Host.Bytes("eth0")
		return at{n.Usage(), rx + tx}
	}
	var before []at
	for _, n := range nodes {
		before = append(before, read(n.n))
	}
	server := m.Server.Usage()
	time.Sleep(d)
	for i, n := range nodes {
		a, z := before[i], read(n.n)
		b.row(n.name+", over "+d.String()+": memory", "MB", []float64{float64(z.u.RSS) / 1e6}, "22 / 16 MB")
		b.row("  processor time per minute", "ms", []float64{ms(z.u.CPU-a.u.CPU) / d.Minutes()}, "10 ms")
		b.row("  wake-ups per minute", "", []float64{float64(z.u.Switches-a.u.Switches) / d.Minutes()}, "60")
		b.row("  traffic per day, all headers", "MB", []float64{float64(z.bytes-a.bytes) / 1e6 * float64(24*time.Hour) / float64(d)}, "0.5 MB")
	}
	now := m.Server.Usage()
	b.row("server with three nodes: memory", "MB", []float64{float64(now.RSS) / 1e6}, "")
	b.row("  wake-ups per minute", "", []float64{float64(now.Switches-server.Switches) / d.Minutes()}, "")
}
