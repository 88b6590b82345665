//go:build e2e

package main

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"weft/scripts/e2e/lab"
)

// connect measures how long a user waits.
func connect(b *bench) {
	m := lab.NewMesh(b, b.bin)
	m.DeviceHome.EchoTCP("127.0.0.1:7")

	var up []float64
	for i := range b.runs {
		n := m.Node(m.LaptopHome.Namespace, fmt.Sprint("fresh-", i))
		m.Laptop.Stop() // frees the ports for the new daemon
		n.Run()
		token := m.Server.NewKey().Token
		start := time.Now()
		if r := n.Weft("up", token); r.Code != 0 {
			b.Fatalf("%v", r)
		}
		page(b, n, start)
		up = append(up, ms(time.Since(start)))
		n.Stop()
	}
	b.row("weft up TOKEN to the first byte of a page by name", "ms", up, "500 ms")

	m.Laptop.Run()
	page(b, m.Laptop, time.Now())
	var again, killed, device []float64
	for range b.runs {
		m.Laptop.Stop()
		start := time.Now()
		m.Laptop.RunNoWait()
		page(b, m.Laptop, start)
		again = append(again, ms(time.Since(start)))
	}
	b.row("weft run, stopped, with its state, to the first byte", "ms", again, "250 ms")
	for range b.runs {
		m.Laptop.Kill()
		start := time.Now()
		m.Laptop.RunNoWait()
		page(b, m.Laptop, start)
		killed = append(killed, ms(time.Since(start)))
	}
	b.row("weft run, killed, with its state, to the first byte", "ms", killed, "250 ms")
	for range b.runs {
		m.Device.Kill()
		start := time.Now()
		m.Device.RunNoWait()
		page(b, m.Laptop, start)
		device = append(device, ms(time.Since(start)))
	}
	b.row("the device's weft run, killed, to the first byte at the laptop", "ms", device, "250 ms")

	var join []float64
	for i := range b.runs {
		home := m.Home(fmt.Sprint("new", i))
		home.Serve("127.0.0.1:80", lab.Page)
		n := m.Node(home.Namespace, fmt.Sprint("new-", i))
		n.Join(m.Server.NewKey("--tag", "device").Token)
		start := time.Now()
		for {
			if _, err := m.Laptop.Get("http://"+n.Name+"/", time.Second); err == nil {
				break
			}
			if time.Since(start) > 10*time.Second {
				b.Fatalf("%s is not reachable", n.Name)
			}
		}
		join = append(join, ms(time.Since(start)))
		n.Stop()
	}
	b.row("a new device that has connected, by name from a laptop", "ms", join, "1000 ms")

	resume(b, m, "SIGTERM", func() { m.Server.Stop() })
	resume(b, m, "kill -9", func() { m.Server.Kill() })
}

// page fetches the device's page as soon as possible.
func page(b *bench, n *lab.Node, start time.Time) {
	for {
		if _, err := n.Get("http://kitchen-pi/", 3*time.Second); err == nil {
			return
		} else if time.Since(start) > 20*time.Second {
			b.Fatalf("no page: %v", err)
		}
		time.Sleep(time.Millisecond)
	}
}

// resume measures the time from the ready server to the next echo of an open
// connection.
func resume(b *bench, m *lab.Mesh, how string, end func()) {
	var times []float64
	stuck := 0
	for range b.runs {
		c, err := m.Laptop.Host.SOCKS(context.Background(), lab.Proxy, "kitchen-pi:7")
		if err != nil {
			b.Fatalf("%v", err)
		}
		var echoes atomic.Int64
		go echo(c, &echoes)
		wait(&echoes, 20, 5*time.Second)
		end()
		time.Sleep(300 * time.Millisecond)
		m.Server.Start()
		start := time.Now()
		if wait(&echoes, echoes.Load()+1, 15*time.Second) {
			times = append(times, ms(time.Since(start)))
		} else {
			stuck++
		}
		c.Close()
		page(b, m.Laptop, time.Now())
	}
	b.row("relay back after "+how+" to the next echo of an open connection", "ms", times, "500 ms")
	if stuck > 0 {
		b.Errorf("%s: %d of %d connections did not continue within 15 s", how, stuck, b.runs)
	}
}

func echo(c net.Conn, n *atomic.Int64) {
	go func() {
		for i := 0; ; i++ {
			if _, err := fmt.Fprintln(c, i); err != nil {
				return
			}
			time.Sleep(5 * time.Millisecond)
		}
	}()
	r := bufio.NewScanner(c)
	for r.Scan() {
		n.Add(1)
	}
}

func wait(n *atomic.Int64, want int64, limit time.Duration) bool {
	for end := time.Now().Add(limit); n.Load() < want; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			return false
		}
	}
	return true
}
