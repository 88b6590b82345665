//go:build e2e

package main

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	mdns "github.com/miekg/dns"

	"weft/dns"
)

// dnsNames is the number of names queried, both of the overlay and of others.
const (
	dnsNames = 10_000
	dnsTime  = "4" // seconds of one run of dnsperf
)

// resolvers compares weft's resolver with unbound, which has the same records as
// local-data, in turns, with dnsperf on the same machine.
func resolvers(b *bench) {
	dir, err := os.MkdirTemp("", "weft-bench-dns")
	if err != nil {
		b.Fatalf("%v", err)
	}
	b.Cleanup(func() { os.RemoveAll(dir) })
	own, others := &bytes.Buffer{}, &bytes.Buffer{}
	for i := range dnsNames {
		fmt.Fprintf(own, "dev-%d.weft.internal A\n", i)
		fmt.Fprintf(others, "host-%d.example.com A\n", i)
	}
	ownFile, otherFile := filepath.Join(dir, "own"), filepath.Join(dir, "others")
	write := func(name string, data []byte) {
		if err := os.WriteFile(name, data, 0o644); err != nil {
			b.Fatalf("%v", err)
		}
	}
	write(ownFile, own.Bytes())
	write(otherFile, others.Bytes())
	up, weft, unbound := freePort(b), freePort(b), freePort(b)
	conf := &bytes.Buffer{}
	fmt.Fprintf(conf, "server:\n interface: 127.0.0.1@%s\n num-threads: 2\n so-reuseport: yes\n do-daemonize: no\n use-syslog: no\n username: \"\"\n chroot: \"\"\n pidfile: \"\"\n directory: %q\n module-config: \"iterator\"\n do-not-query-localhost: no\n do-ip6: no\n incoming-num-tcp: 200\n outgoing-range: 1000\n local-zone: \"weft.internal.\" static\n", unbound, dir)
	for i := range dnsNames {
		fmt.Fprintf(conf, " local-data: \"dev-%d.weft.internal. 5 A %s\"\n", i, benchAddr(i))
	}
	fmt.Fprintf(conf, "forward-zone:\n name: \".\"\n forward-addr: 127.0.0.1@%s\nremote-control:\n control-enable: no\n", up)
	confFile := filepath.Join(dir, "unbound.conf")
	write(confFile, conf.Bytes())
	resolv := filepath.Join(dir, "resolv.conf")
	write(resolv, []byte("nameserver 127.0.0.1:"+up+"\n"))

	b.daemon(os.Args[0], "serve-upstream", "127.0.0.1:"+up)
	echo := freePort(b)
	b.daemon(os.Args[0], "serve-echo", "127.0.0.1:"+echo)
	us := b.daemon(os.Args[0], "serve-dns", "127.0.0.1:"+weft, resolv)
	them := b.daemon("unbound", "-p", "-c", confFile)
	for _, port := range []string{weft, unbound} {
		waitDNS(b, port)
		// First fill the caches.
		b.dnsperf(port, otherFile, "-n", "1", "-c", "4", "-q", "50")
		b.dnsperf(port, ownFile, "-n", "1", "-c", "4", "-q", "50")
	}
	rss := func(pid int) float64 {
		f, _ := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
		var size, resident float64
		fmt.Sscan(string(f), &size, &resident)
		return resident * float64(os.Getpagesize()) / 1e6
	}
	var half, needed float64
	for _, kind := range []struct {
		name, file, held string
		args             []string
	}{
		{"own names, UDP", ownFile, "0.6 / 0.8", []string{"-c", "50", "-T", "2"}},
		{"cached forwarded names, UDP", otherFile, "0.5 / 0.7", []string{"-c", "50", "-T", "2"}},
		{"own names, TCP pipelined", ownFile, "", []string{"-m", "tcp", "-c", "20", "-T", "2"}},
	} {
		var ours, theirs, ourCPU, theirCPU []float64
		run := func(port string, pid int, rates, cpu *[]float64) {
			before := processor(pid)
			rate := b.dnsperf(port, kind.file, append(kind.args, "-l", dnsTime)...)
			secs, _ := strconv.ParseFloat(dnsTime, 64)
			*rates = append(*rates, rate)
			*cpu = append(*cpu, (processor(pid)-before).Seconds()*1e6/rate/secs)
		}
		for range b.runs {
			run(weft, us, &ours, &ourCPU)
			run(unbound, them, &theirs, &theirCPU)
		}
		a := b.row(kind.name+": weft; dnsperf -l "+dnsTime+" "+strings.Join(kind.args, " "), "q/s", ours, "")
		z := b.row(kind.name+": unbound, 2 threads", "q/s", theirs, "")
		b.row("  ratio", "", []float64{a / z}, kind.held)
		b.row("  processor time per query: weft", "µs", ourCPU, "")
		b.row("  processor time per query: unbound", "µs", theirCPU, "")
		if half == 0 {
			half, needed = a/2, 0.6*z/2
		}
		if kind.held == "" {
			b.row("  TCP to UDP, weft", "", []float64{a / half / 2}, "0.5")
		}
	}
	for _, load := range []struct {
		of   string
		rate float64
	}{{"half of the 0.6 x that are needed", needed}, {"half of what weft can", half}} {
		var p99, theirP99, bare []float64
		for range b.runs {
			bare = append(bare, paced(b, echo, load.rate, 3*time.Second))
			p99 = append(p99, paced(b, weft, load.rate, 3*time.Second))
			theirP99 = append(theirP99, paced(b, unbound, load.rate, 3*time.Second))
		}
		b.row(fmt.Sprintf("own names, UDP, at %.0f q/s (%s): p99, weft", load.rate, load.of), "ms", p99, "2 ms")
		b.row("  unbound at the same rate", "ms", theirP99, "")
		b.row("  a bare socket that sends each question back, at the same rate", "ms", bare, "")
	}
	b.row("memory of the process with 10,000 names and a full cache: weft", "MB", []float64{rss(us)}, "")
	b.row("  unbound", "MB", []float64{rss(them)}, "")
	answered, sent := flood(b, weft, 1_000_000)
	b.row("1,000,000 queries, 10 % malformed: valid ones answered", "%", []float64{100 * answered / sent}, "100 %")
	b.row("memory of the process after that", "MB", []float64{rss(us)}, "")
}

// processor is the processor time of a process so far.
func processor(pid int) time.Duration {
	f, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, rest, _ := strings.Cut(string(f), ") ")
	fields := strings.Fields(rest)
	if len(fields) < 13 {
		return 0
	}
	user, _ := strconv.Atoi(fields[11])
	system, _ := strconv.Atoi(fields[12])
	return time.Duration(user+system) * time.Second / 100
}

func benchAddr(i int) netip.Addr { return netip.AddrFrom4([4]byte{100, 64, byte(i >> 8), byte(i)}) }

func freePort(b *bench) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatalf("%v", err)
	}
	defer l.Close()
	return strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
}

// daemon runs a program until the part ends and returns its process id.
func (b *bench) daemon(name string, args ...string) int {
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "PATH=/usr/local/sbin:/usr/sbin:/sbin:"+os.Getenv("PATH"))
	if name == "unbound" {
		cmd.Path = "/usr/sbin/unbound"
		cmd.Err = nil
	}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		b.Fatalf("%s: %v", name, err)
	}
	b.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil && b.Failed() {
			b.Logf("%s: %v\n%s", name, err, out.String())
		}
	})
	return cmd.Process.Pid
}

func waitDNS(b *bench, port string) {
	m := new(mdns.Msg).SetQuestion("dev-0.weft.internal.", mdns.TypeA)
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if r, err := mdns.Exchange(m, "127.0.0.1:"+port); err == nil && len(r.Answer) == 1 {
			return
		}
		if time.Now().After(end) {
			b.Fatalf("no answer on port %s", port)
		}
	}
}

var perSecond = regexp.MustCompile(`Queries per second:\s+([0-9.]+)`)
var lost = regexp.MustCompile(`Queries lost:\s+(\d+)`)
var noerror = regexp.MustCompile(`NOERROR (\d+)`)

// dnsperf runs dnsperf and returns queries per second.
func (b *bench) dnsperf(port, file string, args ...string) float64 {
	out, err := exec.Command("dnsperf", append([]string{"-s", "127.0.0.1", "-p", port, "-d", file}, args...)...).CombinedOutput()
	m := perSecond.FindSubmatch(out)
	if err != nil || m == nil || !noerror.Match(out) {
		b.Fatalf("dnsperf %v: %v\n%s", args, err, out)
	}
	if l := lost.FindSubmatch(out); l != nil && string(l[1]) != "0" {
		b.Logf("dnsperf %v: %s queries lost", args, l[1])
	}
	v, _ := strconv.ParseFloat(string(m[1]), 64)
	return v
}

// paced queries at a steady rate and returns the 99th percentile in ms.
func paced(b *bench, port string, rate float64, d time.Duration) float64 {
	conn, err := net.Dial("udp", "127.0.0.1:"+port)
	if err != nil {
		b.Fatalf("%v", err)
	}
	defer conn.Close()
	conn.(*net.UDPConn).SetReadBuffer(4 << 20)
	var sent [1 << 16]time.Time
	lat := make([]time.Duration, 0, int(rate*d.Seconds()*1.1))
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 1500)
		for {
			n, err := conn.Read(buf)
			if err != nil {
				return
			}
			if n > 2 && len(lat) < cap(lat) {
				lat = append(lat, time.Since(sent[int(buf[0])<<8|int(buf[1])]))
			}
		}
	}()
	var msgs [][]byte
	for i := range 1000 {
		m, _ := new(mdns.Msg).SetQuestion(fmt.Sprintf("dev-%d.weft.internal.", i*10), mdns.TypeA).Pack()
		msgs = append(msgs, m)
	}
	begin := time.Now()
	for i := 0; time.Since(begin) < d; i++ {
		for float64(i) > rate*time.Since(begin).Seconds() {
			time.Sleep(50 * time.Microsecond)
		}
		m := msgs[i%len(msgs)]
		m[0], m[1] = byte(i>>8), byte(i)
		sent[i&0xffff] = time.Now()
		conn.Write(m)
	}
	time.Sleep(100 * time.Millisecond)
	conn.SetReadDeadline(time.Now())
	<-done
	if len(lat) == 0 {
		b.Fatalf("no answers")
	}
	slices.Sort(lat)
	return ms(lat[len(lat)*99/100])
}

// flood sends n queries, a tenth of them malformed, and counts the answers to the valid
// ones.
func flood(b *bench, port string, n int) (answered, sent float64) {
	conn, err := net.Dial("udp", "127.0.0.1:"+port)
	if err != nil {
		b.Fatalf("%v", err)
	}
	defer conn.Close()
	conn.(*net.UDPConn).SetReadBuffer(4 << 20)
	window := make(chan struct{}, 100)
	var got int
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 1500)
		for {
			n, err := conn.Read(buf)
			if err != nil {
				return
			}
			if n > 12 && buf[3]&0xf == 0 {
				got++
				<-window
			}
		}
	}()
	valid := 0
	for i := range n {
		m, _ := new(mdns.Msg).SetQuestion(fmt.Sprintf("dev-%d.weft.internal.", rand.IntN(dnsNames)), mdns.TypeA).Pack()
		if i%10 == 0 {
			m = m[:rand.IntN(len(m))]
			for j := range m {
				if j > 3 && rand.IntN(8) == 0 {
					m[j] ^= byte(1 + rand.IntN(255))
				}
			}
			conn.Write(m)
			continue
		}
		select {
		case window <- struct{}{}:
		case <-time.After(2 * time.Second):
			// Do not wait for a lost query.
		}
		valid++
		conn.Write(m)
	}
	time.Sleep(time.Second)
	conn.SetReadDeadline(time.Now())
	<-done
	return float64(got), float64(valid)
}

// serveDNS is weft's resolver in a process of its own, as the daemon runs it with
// dns.Listen and Serve.
func serveDNS(addr, resolv string) {
	z := &dns.Zone{
		Ready: true, Serial: 1, Suffix: "weft.internal", Complete: true,
		IPv4: netip.MustParsePrefix("100.64.0.0/10"), IPv6: netip.MustParsePrefix("fd00:77::/48"),
	}
	for i := range dnsNames {
		z.Hosts = append(z.Hosts, dns.Host{Name: fmt.Sprintf("dev-%d", i), IPv4: benchAddr(i)})
	}
	s := dns.New(dns.Config{Zone: func() *dns.Zone { return z }, ResolvConf: resolv})
	pc, l, err := dns.Listen(addr)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	s.Serve(pc, l)
	untilTold()
	s.Close()
}

// serveUpstream answers every name.
func serveUpstream(addr string) {
	s := &mdns.Server{Addr: addr, Net: "udp", Handler: mdns.HandlerFunc(func(w mdns.ResponseWriter, r *mdns.Msg) {
		m := new(mdns.Msg).SetReply(r)
		m.Answer = []mdns.RR{&mdns.A{Hdr: mdns.RR_Header{Name: r.Question[0].Name, Rrtype: mdns.TypeA, Class: mdns.ClassINET, Ttl: 3600}, A: net.IPv4(192, 0, 2, 1)}}
		w.WriteMsg(m)
	})}
	go s.ListenAndServe()
	untilTold()
}

// serveEcho sends each query back. It measures the cost of the machine, the kernel and
// the client.
func serveEcho(addr string) {
	pc, err := net.ListenPacket("udp", addr)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	c := pc.(*net.UDPConn)
	c.SetReadBuffer(4 << 20)
	go func() {
		buf := make([]byte, 1500)
		for {
			n, from, err := c.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			c.WriteToUDPAddrPort(buf[:n], from)
		}
	}()
	untilTold()
	c.Close()
}

func untilTold() {
	runtime.GC()
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGTERM, os.Interrupt)
	<-c
}
