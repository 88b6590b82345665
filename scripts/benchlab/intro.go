//go:build e2e

package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"weft/netstack"
	"weft/overlay"
	"weft/scripts/e2e/lab"
)

// introNodes is the number of nodes that call each other once: each pair is one
// introduction between whole nodes, through one relay and one server. A node may call
// 100 others at once before the relay slows it down.
const introNodes = 100

func introductions(b *bench) {
	l := lab.New(b, b.bin)
	host, other := l.Host("server"), l.Host("nodes")
	s := l.Serve(host, ":8443", "https://"+host.Addr+":8443")
	token := s.NewKey("--reusable").Token
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	nodes := make([]*overlay.Node, introNodes)
	start := time.Now()
	var wg sync.WaitGroup
	gate := make(chan struct{}, 8)
	for i := range nodes {
		wg.Go(func() {
			gate <- struct{}{}
			defer func() { <-gate }()
			stack, err := netstack.New(netstack.Config{})
			if err != nil {
				b.Errorf("%v", err)
				return
			}
			n, err := overlay.New(overlay.Config{Net: stack, StateDir: l.Mkdir(fmt.Sprint("node-", i)), Token: token, Hostname: fmt.Sprint("n", i), NetDial: other.Dial})
			if err == nil {
				err = n.Start(ctx)
			}
			if err == nil {
				err = n.Wait(ctx, "")
			}
			if err != nil {
				b.Errorf("node %d: %v", i, err)
				return
			}
			nodes[i] = n
		})
	}
	wg.Wait()
	if slices.Contains(nodes, nil) {
		b.Fatalf("not all nodes are up")
	}
	defer func() {
		for _, n := range nodes {
			wg.Go(func() { n.Close() })
		}
		wg.Wait()
	}()
	b.row(fmt.Sprintf("%d embedded nodes, start, join and connect", introNodes), "s", []float64{time.Since(start).Seconds()}, "")
	time.Sleep(3 * time.Second) // directories

	var done, failed atomic.Int64
	var first sync.Once
	cpu := s.Usage().CPU
	start = time.Now()
	jobs := make(chan [2]int)
	for range 32 {
		wg.Go(func() {
			for j := range jobs {
				once, cancel := context.WithTimeout(ctx, 10*time.Second)
				var c net.Conn
				c, err := nodes[j[0]].DialContext(once, "udp", fmt.Sprintf("n%d:9", j[1]))
				cancel()
				if err != nil {
					failed.Add(1)
					first.Do(func() { fmt.Fprintln(os.Stderr, "first failure:", err) })
					continue
				}
				c.Close()
				done.Add(1)
			}
		})
	}
	for step := 1; step <= introNodes/2-1; step++ {
		for i := range nodes {
			jobs <- [2]int{i, (i + step) % introNodes}
		}
	}
	close(jobs)
	wg.Wait()
	took := time.Since(start)
	b.row("introductions per minute, all nodes on the same cores", "", []float64{float64(done.Load()) / took.Minutes()}, "10000")
	b.row("  of them failed", "", []float64{float64(failed.Load())}, "0")
	b.row("  server's processor time each", "ms", []float64{ms(s.Usage().CPU-cpu) / float64(done.Load())}, "")
	b.row("  server's memory", "MB", []float64{float64(s.Usage().RSS) / 1e6}, "")
}
