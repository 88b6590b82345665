//go:build e2e

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"time"

	"weft/scripts/e2e/lab"
)

// memory sends many bytes in one TCP flow over a direct path, and measures the peak
// memory of each daemon and its memory a minute later. Each pair is new, one after the
// other.
func memory(b *bench) {
	gb := 10.0
	if n, err := strconv.ParseFloat(os.Getenv("BENCH_GB"), 64); err == nil && n > 0 {
		gb = n
	}
	for _, c := range []struct {
		name              string
		tunX, tunY, socks bool
	}{
		{"TUN - TUN", true, true, false},
		{"user space - TUN, forward", false, true, false},
		{"user space - user space, forward", false, false, false},
		{"user space - user space, --proxy", false, false, true},
	} {
		b.part(func(b *bench) {
			l := lab.New(b, b.bin)
			host := l.Host("server")
			server := l.Serve(host, ":8443", "https://"+host.Addr+":8443")
			t := weftPair(b, l, server, l.Host("x"), l.Host("y"), c.name, "5320", c.tunX, c.tunY, c.socks, "direct")
			start := time.Now()
			bytes := t.moveAll(b, int64(gb*1e9))
			rate := float64(bytes) * 8 / time.Since(start).Seconds() / 1e6
			end := time.Now()
			b.row(fmt.Sprintf("%s, %g GB in one TCP flow", c.name, gb), "Mbit/s", []float64{rate}, "")
			for i, side := range []string{"sender", "receiver"} {
				b.row("  peak memory, "+side, "MB", []float64{peak(t.procs[i])}, "120 MB")
			}
			time.Sleep(time.Until(end.Add(time.Minute)))
			for i, side := range []string{"sender", "receiver"} {
				b.row("  memory a minute later, "+side, "MB", []float64{float64(t.procs[i].Usage().RSS) / 1e6}, "40 MB")
			}
		})
	}
}

// moveAll sends so many bytes through the tunnel in one TCP flow and returns how many
// arrived.
func (t *tunnel) moveAll(b *bench, bytes int64) int64 {
	if t.socks == "" {
		r := t.from.RunInput(lab.Nobody, "", time.Hour, "iperf3", "-J", "-c", t.to, "-p", t.port, "-n", fmt.Sprint(bytes))
		var v struct {
			End struct {
				Received struct{ Bytes int64 } `json:"sum_received"`
			}
			Error string
		}
		if err := json.Unmarshal([]byte(r.Out), &v); err != nil || v.Error != "" || v.End.Received.Bytes < bytes*9/10 { // the rest is still in transit
			b.Fatalf("iperf3: %v %s, %d bytes, %v", err, v.Error, v.End.Received.Bytes, r.Err)
		}
		return v.End.Received.Bytes
	}
	c, err := t.from.SOCKS(context.Background(), lab.Proxy, t.socks+":9")
	if err != nil {
		b.Fatalf("%v", err)
	}
	defer c.Close()
	buf := make([]byte, 250_000)
	for sent := int64(0); sent < bytes; sent += int64(len(buf)) {
		if _, err := c.Write(buf); err != nil {
			b.Fatalf("%s: %v", t.socks, err)
		}
	}
	c.CloseWrite()
	var n int64
	if _, err := fmt.Fscan(c, &n); err != nil || n < bytes {
		b.Fatalf("%s: %d bytes, %v", t.socks, n, err)
	}
	return n
}
