//go:build e2e

package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"weft/scripts/e2e/lab"
)

// direct compares the real programs, on a direct path and on others, with plain
// wireguard-go, built from its module: pairs of machines on one bridge, in turns, with
// one and four TCP flows, and with the interfaces' offloads on and off. The processor
// time covers the two daemons and everything between them (the forward, the server),
// but not iperf3.
func direct(b *bench) {
	l := lab.New(b, b.bin)
	host := l.Host("server")
	server := l.Serve(host, ":8443", "https://"+host.Addr+":8443")
	var hosts []*lab.Namespace
	pair := func(name string) (x, y *lab.Namespace) {
		x, y = l.Host(name+"1"), l.Host(name+"2")
		hosts = append(hosts, x, y)
		return x, y
	}
	var all []*tunnel
	x, y := pair("plain")
	all = append(all, plainWireGuard(b, l, x, y))
	for _, c := range []struct {
		name, port        string
		tunX, tunY, socks bool
		path              string
	}{
		{"weft TUN - TUN", "5311", true, true, false, "direct"},
		{"weft user space - TUN, forward", "5312", false, true, false, "direct"},
		{"weft user space - user space, forward", "5313", false, false, false, "direct"},
		{"weft user space - user space, --proxy", "5314", false, false, true, "direct"},
		{"weft TUN - TUN, relayed UDP", "5315", true, true, false, "lane"},
		{"weft TUN - TUN, relay connection", "5316", true, true, false, "relay"},
	} {
		x, y := pair("p" + c.port)
		switch c.path {
		case "lane":
			x.NFT("table inet way { chain in { type filter hook input priority 0; ip saddr " + y.Addr + " meta l4proto udp drop; }; }\n")
		case "relay":
			x.NFT("table inet way { chain in { type filter hook input priority 0; iifname eth0 meta l4proto udp drop; }; }\n")
		}
		t := weftPair(b, l, server, x, y, c.name, c.port, c.tunX, c.tunY, c.socks, c.path)
		if c.path != "direct" {
			t.procs = append(t.procs, server.Proc)
		}
		all = append(all, t)
	}
	for _, offloads := range []bool{true, false} {
		if os.Getenv("BENCH_OFFLOADS") == strconv.FormatBool(!offloads) {
			continue
		}
		word := "on"
		if !offloads {
			word = "off"
			for _, n := range hosts {
				setOffloads(b, n, "eth0", false)
			}
			for i := range len(hosts) + 1 {
				setOffloads(b, l.Internet, fmt.Sprintf("h%d", i+1), false)
			}
		}
		for _, flows := range []int{1, 4} {
			compare(b, all, flows, word)
		}
		pingPongs(b, all, word)
	}
	start := time.Now()
	for _, t := range all {
		for i, p := range t.procs[:2] {
			b.row(fmt.Sprintf("peak memory, %s, end %d", t.name, i+1), "MB", []float64{peak(p)}, "120 MB")
		}
	}
	time.Sleep(time.Until(start.Add(time.Minute)))
	for _, t := range all {
		for i, p := range t.procs[:2] {
			b.row(fmt.Sprintf("memory a minute later, %s, end %d", t.name, i+1), "MB", []float64{float64(p.Usage().RSS) / 1e6}, "40 MB")
		}
	}
}

// compare runs all tunnels in turns.
func compare(b *bench, all []*tunnel, flows int, word string) {
	rates, cpus := map[*tunnel][]float64{}, map[*tunnel][]float64{}
	for range b.runs {
		for _, t := range all {
			m := measure1(b, t.procs, func() float64 { return t.send(b, flows) })
			rates[t], cpus[t] = append(rates[t], m.rate), append(cpus[t], m.cpu)
		}
	}
	for _, t := range all {
		rate, cpu := median(rates[t]), median(cpus[t])
		b.row(fmt.Sprintf("%s, %d TCP, offloads %s", t.name, flows, word), "Mbit/s", rates[t], fmt.Sprintf("%.2f x", rate/median(rates[all[0]])))
		b.row("  processor seconds per GB, all of it", "s", cpus[t], fmt.Sprintf("%.2f x", cpu/median(cpus[all[0]])))
	}
}

// weftPair is two joined nodes on a path of the given kind.
func weftPair(b *bench, l *lab.Lab, server *lab.Server, x, y *lab.Namespace, name, port string, tunX, tunY, socks bool, path string, more ...string) *tunnel {
	t := &tunnel{name: name, from: x, port: port}
	var nodes []*lab.Node
	for i, s := range []struct {
		at  *lab.Namespace
		tun bool
	}{{x, tunX}, {y, tunY}} {
		n := l.Node(s.at, fmt.Sprintf("n%s-%d", port, i))
		var flags []string
		if s.tun {
			n.As = lab.Root
			flags = []string{"--tun", "weft0", "--os-dns", "off"}
		}
		flags = append(flags, more...)
		n.Up(server.NewKey().Token, flags...)
		nodes = append(nodes, n)
		t.procs = append(t.procs, n.Proc)
	}
	far := nodes[1].Status().Self
	l.Until(30*time.Second, "the path is "+path, func() bool {
		nodes[0].Weft("ping", "-c", "1", far.Name)
		for _, p := range nodes[0].Status().Peers {
			if p.Name == far.Name {
				return p.Path == path
			}
		}
		return false
	})
	serveIperf(b, y, port)
	ready(b, y, "127.0.0.1:"+port) // a forward accepts connections in any case
	y.EchoTCP(":7")
	switch {
	case tunX:
		t.to, t.echo = far.IPv4, far.IPv4+":7"
	case socks:
		sink := y.Listen("127.0.0.1:9")
		go serve(sink, discard)
		t.socks = far.Name
		t.echo = far.Name + ":7"
	default:
		t.to, t.echo = "127.0.0.1", "127.0.0.1:7007"
		t.procs = append(t.procs,
			x.Start(nodes[0].As, "weft", "forward", "--socket", nodes[0].Sock, port+":"+far.Name+":"+port),
			x.Start(nodes[0].As, "weft", "forward", "--socket", nodes[0].Sock, "7007:"+far.Name+":7"))
	}
	if !socks {
		ready(b, x, t.to+":"+port)
	}
	return t
}

// send sends TCP through the tunnel for flowTime and returns Mbit/s.
func (t *tunnel) send(b *bench, flows int) float64 {
	if t.socks == "" {
		return iperf(b, t.from, t.to, t.port, append(slices.Clone(t.flags), "-P", strconv.Itoa(flows))...)
	}
	rates := make(chan float64, flows)
	for range flows {
		go func() { rates <- upload(b, t.from, t.socks+":9") }()
	}
	sum := 0.0
	for range flows {
		sum += <-rates
	}
	return sum
}

// pingPongs measures round trips of one byte over TCP through each tunnel that has an echo
// server, in turns: 3,000 in a row, and the rows are medians over the turns.
func pingPongs(b *bench, all []*tunnel, word string) {
	p50, p99, cpus := map[*tunnel][]float64{}, map[*tunnel][]float64{}, map[*tunnel][]float64{}
	for range b.runs {
		for _, t := range all {
			if t.echo == "" {
				continue
			}
			before := used(t.procs)
			took := t.pingPong(b)
			cpus[t] = append(cpus[t], float64((used(t.procs)-before).Microseconds())/float64(len(took)))
			p50[t], p99[t] = append(p50[t], took[len(took)/2]), append(p99[t], took[len(took)*99/100])
		}
	}
	for _, t := range all {
		if t.echo == "" {
			continue
		}
		b.row(fmt.Sprintf("round trip p50 over TCP, %s, offloads %s", t.name, word), "us", p50[t], fmt.Sprintf("%.2f x, p99 %.0f us", median(p50[t])/median(p50[all[0]]), median(p99[t])))
		b.row("  processor microseconds per round trip, all of it", "us", cpus[t], "")
	}
}

// pingPong returns how long 3,000 round trips took, in microseconds, sorted.
func (t *tunnel) pingPong(b *bench) (took []float64) {
	var c net.Conn
	var err error
	if t.socks != "" {
		c, err = t.from.SOCKS(context.Background(), lab.Proxy, t.echo)
	} else {
		c, err = t.from.Dial(context.Background(), "tcp", t.echo)
	}
	if err != nil {
		b.Fatalf("%v", err)
	}
	defer c.Close()
	buf := make([]byte, 1)
	for range 3000 {
		start := time.Now()
		if _, err := c.Write(buf); err != nil {
			b.Fatalf("%v", err)
		}
		if _, err := c.Read(buf); err != nil {
			b.Fatalf("%v", err)
		}
		took = append(took, float64(time.Since(start).Nanoseconds())/1000)
	}
	slices.Sort(took)
	return took
}

// peak is the peak resident memory of a process in MB.
func peak(p *lab.Proc) float64 {
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.PID()))
	_, rest, _ := strings.Cut(string(status), "VmHWM:")
	kb, _ := strconv.ParseFloat(strings.Fields(rest + " 0")[0], 64)
	return kb * 1024 / 1e6
}
