//go:build e2e

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"time"

	"weft/scripts/e2e/lab"
)

const flowTime = 4 * time.Second

// throughput sends one TCP flow node - relay - node, all on this machine, and for
// comparison the same bytes without weft.
func throughput(b *bench) {
	m := lab.NewMesh(b, b.bin)
	m.DeviceHome.Start(lab.Nobody, "iperf3", "-s", "-B", "127.0.0.1")
	m.Server.Host.Start(lab.Nobody, "iperf3", "-s", "-p", "5202")
	forward := m.Laptop.Host.Start(m.Laptop.As, "weft", "forward", "--socket", m.Laptop.Sock, "5201:kitchen-pi:5201")
	source, sink := m.DeviceHome.Listen("127.0.0.1:19"), m.DeviceHome.Listen("127.0.0.1:9")
	go serve(source, func(c net.Conn) {
		buf := make([]byte, 256<<10)
		for {
			if _, err := c.Write(buf); err != nil {
				return
			}
		}
	})
	go serve(sink, discard)
	procs := []*lab.Proc{m.Server.Proc, m.Device.Proc, m.Laptop.Proc}

	ready(b, m.Server.Host, m.Server.Host.Addr+":5202")
	ready(b, m.DeviceHome.Namespace, "127.0.0.1:5201")
	ready(b, m.Laptop.Host, "127.0.0.1:5201")
	raw := measure(b, nil, func() float64 {
		return iperf(b, m.Laptop.Host, m.Server.Host.Addr, "5202")
	})
	b.row("plain TCP, laptop to server, no weft: iperf3 -c SERVER", "Mbit/s", raw.rates, "")
	held := "700 / 1000 Mbit/s"
	cpu := "16 / 12 s"
	get := measure(b, procs, func() float64 { return bulk(b, m, "kitchen-pi:19", true) })
	rate := b.row("relay, device to laptop, one flow through --proxy (SOCKS)", "Mbit/s", get.rates, held)
	b.row("  processor seconds per GB, both nodes and the server", "s", get.cpu, cpu)
	b.row("  ratio to plain TCP", "", []float64{rate / median(raw.rates)}, "")
	put := measure(b, procs, func() float64 { return bulk(b, m, "kitchen-pi:9", false) })
	b.row("relay, laptop to device, one flow through --proxy (SOCKS)", "Mbit/s", put.rates, held)
	b.row("  processor seconds per GB, both nodes and the server", "s", put.cpu, cpu)
	procs = append(procs, forward)
	fwd := measure(b, procs, func() float64 { return iperf(b, m.Laptop.Host, "127.0.0.1", "5201") })
	b.row("relay, laptop to device: weft forward; iperf3 -c 127.0.0.1", "Mbit/s", fwd.rates, held)
	b.row("  processor seconds per GB, with the forward process", "s", fwd.cpu, "")
	rev := measure(b, procs, func() float64 { return iperf(b, m.Laptop.Host, "127.0.0.1", "5201", "-R") })
	b.row("relay, device to laptop: weft forward; iperf3 -R", "Mbit/s", rev.rates, held)
	b.row("  processor seconds per GB, with the forward process", "s", rev.cpu, "")
	for name, p := range map[string]*lab.Proc{"server": m.Server.Proc, "device": m.Device.Proc, "laptop": m.Laptop.Proc} {
		b.row("  memory after all that, "+name, "MB", []float64{float64(p.Usage().RSS) / 1e6}, "")
	}
}

// ready waits until a program listens there. Each try is short: a connection that was tried
// before the interface of a tunnel is up has the source address of another one for good.
func ready(b *bench, n *lab.Namespace, addr string) {
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		c, err := n.Dial(ctx, "tcp", addr)
		cancel()
		if err == nil {
			c.Close()
			time.Sleep(200 * time.Millisecond) // iperf3 serves one client at a time
			return
		}
		if time.Now().After(end) {
			b.Fatalf("%v", err)
		}
	}
}

type measured struct{ rates, cpu []float64 }

// measure runs f, which returns Mbit/s over about flowTime, and measures the processor
// time of procs.
func measure(b *bench, procs []*lab.Proc, f func() float64) (m measured) {
	for range b.runs {
		before := used(procs)
		start := time.Now()
		rate := f()
		gb := rate * 1e6 / 8 * min(time.Since(start), flowTime).Seconds() / 1e9
		m.rates = append(m.rates, rate)
		m.cpu = append(m.cpu, (used(procs)-before).Seconds()/gb)
	}
	return m
}

func used(procs []*lab.Proc) (d time.Duration) {
	for _, p := range procs {
		d += p.Usage().CPU
	}
	return d
}

func iperf(b *bench, from *lab.Namespace, to, port string, flags ...string) float64 {
	r := from.Run(lab.Nobody, append([]string{"iperf3", "-J", "-c", to, "-p", port, "-t", fmt.Sprint(flowTime.Seconds())}, flags...)...)
	var v struct {
		End struct {
			Received struct {
				Rate float64 `json:"bits_per_second"`
			} `json:"sum_received"`
		} `json:"end"`
		Error string
	}
	if err := json.Unmarshal([]byte(r.Out), &v); err != nil || v.Error != "" || v.End.Received.Rate == 0 {
		b.Fatalf("iperf3: %v %s %v", err, v.Error, r.Err)
	}
	return v.End.Received.Rate / 1e6
}

// discard reads to the end and reports the number of bytes.
func discard(c net.Conn) {
	n, _ := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{c}, make([]byte, 256<<10))
	fmt.Fprintf(c, "%d\n", n)
}

// upload is bulk away from here.
func upload(b *bench, from *lab.Namespace, to string) float64 {
	return bulkFrom(b, from, to, false)
}

// bulk sends bytes through the laptop's proxy for flowTime.
func bulk(b *bench, m *lab.Mesh, to string, download bool) float64 {
	return bulkFrom(b, m.Laptop.Host, to, download)
}

func bulkFrom(b *bench, from *lab.Namespace, to string, download bool) float64 {
	c, err := from.SOCKS(context.Background(), lab.Proxy, to)
	if err != nil {
		b.Fatalf("%v", err)
	}
	defer c.Close()
	buf := make([]byte, 256<<10)
	start := time.Now()
	end := start.Add(flowTime)
	var n int64
	for time.Now().Before(end) {
		var k int
		if download {
			k, err = c.Read(buf)
		} else {
			k, err = c.Write(buf)
		}
		n += int64(k)
		if err != nil {
			b.Fatalf("%s: %v", to, err)
		}
	}
	if !download { // until everything has arrived
		c.CloseWrite()
		if _, err := fmt.Fscan(c, &n); err != nil {
			b.Fatalf("%s: %v", to, err)
		}
	}
	return float64(n) * 8 / time.Since(start).Seconds() / 1e6
}

func serve(ln net.Listener, f func(net.Conn)) {
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		go func() { defer c.Close(); f(c) }()
	}
}

func median(v []float64) float64 {
	s := append([]float64(nil), v...)
	for i := range s {
		for j := i; j > 0 && s[j] < s[j-1]; j-- {
			s[j], s[j-1] = s[j-1], s[j]
		}
	}
	return s[len(s)/2]
}
