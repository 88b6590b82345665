//go:build e2e

package main

import (
	"crypto/ecdh"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"weft/scripts/e2e/lab"
)

// ends compares the data path alone (see end) with plain wireguard-go, built from its
// module: two machines on one bridge, one and four TCP flows, the interfaces' offloads
// on and off, in turns.
func ends(b *bench) {
	l := lab.New(b, b.bin)
	a, z := l.Host("a"), l.Host("z")
	only := strings.Fields(os.Getenv("BENCH_ONLY"))
	var all []*tunnel
	for _, c := range []struct {
		name string
		make func(*bench, *lab.Lab, *lab.Namespace, *lab.Namespace) *tunnel
	}{{"plain", plainWireGuard}, {"tun", kernelEnds}, {"mixed", mixedEnds}, {"user", userEnds}} {
		if len(only) == 0 || slices.Contains(only, c.name) {
			all = append(all, c.make(b, l, a, z))
		}
	}
	for _, offloads := range []bool{true, false} {
		if os.Getenv("BENCH_OFFLOADS") == strconv.FormatBool(!offloads) {
			continue
		}
		word := "on"
		if !offloads {
			word = "off"
			for _, n := range []*lab.Namespace{a, z} {
				setOffloads(b, n, "eth0", false)
			}
			setOffloads(b, l.Internet, "h1", false)
			setOffloads(b, l.Internet, "h2", false)
		}
		for _, flows := range []int{1, 4} {
			compare(b, all, flows, word)
		}
	}
	for _, t := range all {
		for _, p := range t.procs {
			b.row("memory after all that, "+t.name, "MB", []float64{float64(p.Usage().RSS) / 1e6}, "")
		}
	}
}

// tunnel is one connection between two machines that iperf3 can use.
type tunnel struct {
	name     string
	procs    []*lab.Proc
	from     *lab.Namespace
	to, port string // address of an iperf3 server
	flags    []string
	socks    string // if set, use the proxy to this name's discard server instead
	echo     string // address of an echo server
}

type measured1 struct{ rate, cpu float64 }

func measure1(b *bench, procs []*lab.Proc, f func() float64) measured1 {
	before := used(procs)
	rate := f()
	return measured1{rate, (used(procs) - before).Seconds() / (rate * 1e6 / 8 * flowTime.Seconds() / 1e9)}
}

// udpPackets returns how many UDP packets of 200 bytes arrive in flowTime.
func udpPackets(b *bench, t *tunnel) float64 {
	r := t.from.Run(lab.Nobody, "iperf3", "-J", "-u", "-b", "0", "-l", "200", "-c", t.to, "-p", t.port, "-t", fmt.Sprint(flowTime.Seconds()))
	var v struct {
		End struct {
			Sum struct {
				Packets float64 `json:"packets"`
				Lost    float64 `json:"lost_packets"`
			} `json:"sum"`
		} `json:"end"`
		Error string
	}
	if err := json.Unmarshal([]byte(r.Out), &v); err != nil || v.Error != "" || v.End.Sum.Packets == 0 {
		b.Fatalf("iperf3: %v %s %v", err, v.Error, r.Err)
	}
	return v.End.Sum.Packets - v.End.Sum.Lost
}

func serveIperf(b *bench, n *lab.Namespace, port string, bind ...string) {
	args := []string{"iperf3", "-s", "-p", port}
	for _, ip := range bind {
		args = append(args, "-B", ip)
	}
	n.Start(lab.Nobody, args...)
}

func plainWireGuard(b *bench, l *lab.Lab, a, z *lab.Namespace) *tunnel {
	t := &tunnel{name: "wireguard-go, TUN - TUN", from: a, to: "10.9.0.2", port: "5301", echo: "10.9.0.2:7"}
	type side struct {
		n    *lab.Namespace
		key  *ecdh.PrivateKey
		dev  string
		addr string
	}
	sides := []*side{{n: a, dev: "plaina", addr: "10.9.0.1"}, {n: z, dev: "plainz", addr: "10.9.0.2"}}
	for _, s := range sides {
		var err error
		if s.key, err = ecdh.X25519().GenerateKey(rand.Reader); err != nil {
			b.Fatalf("%v", err)
		}
		t.procs = append(t.procs, s.n.Start(lab.Root, "wireguard", "-f", s.dev))
	}
	for i, s := range sides {
		peer := sides[1-i]
		var c net.Conn
		l.Until(10*time.Second, "wireguard-go listens", func() (ok bool) {
			var err error
			c, err = net.Dial("unix", "/var/run/wireguard/"+s.dev+".sock")
			return err == nil
		})
		fmt.Fprintf(c, "set=1\nprivate_key=%x\nlisten_port=%d\npublic_key=%x\nendpoint=%s:%d\nallowed_ip=%s/32\n\n",
			s.key.Bytes(), 51820+i, peer.key.PublicKey().Bytes(), peer.n.Addr, 51820+1-i, peer.addr)
		answer := make([]byte, 100)
		n, _ := c.Read(answer)
		if !strings.Contains(string(answer[:n]), "errno=0") {
			b.Fatalf("wireguard-go: %q", answer[:n])
		}
		c.Close()
		s.n.IP("addr add "+s.addr+"/24 dev "+s.dev, "link set "+s.dev+" up mtu 1420")
	}
	serveIperf(b, z, t.port)
	z.EchoTCP("10.9.0.2:7")
	ready(b, a, t.to+":"+t.port)
	return t
}

// twoEnds starts both ends of a tunnel.
func twoEnds(b *bench, l *lab.Lab, a, z *lab.Namespace, t *tunnel, forA, forZ []string) {
	dir := filepath.Join(l.Dir, "ends-"+t.port)
	if err := os.Mkdir(dir, 0o755); err != nil {
		b.Fatalf("%v", err)
	}
	end := filepath.Join(l.Bin, "end")
	t.procs = append(t.procs,
		a.Start(lab.Root, append([]string{end, "-dir", dir, "-name", "a", "-peer", z.Addr}, forA...)...),
		z.Start(lab.Root, append([]string{end, "-dir", dir, "-name", "b", "-peer", a.Addr}, forZ...)...))
	for _, p := range t.procs {
		l.Until(10*time.Second, "the ends are up", func() bool { return strings.Contains(p.Out(), "up") })
	}
}

// planes compares data planes with kernel interfaces, in turns.
func planes(b *bench) {
	all := planeTunnels(b)
	for _, flows := range []int{1, 4} {
		compare(b, all, flows, "on")
	}
	pingPongs(b, all, "on")
	smallPackets(b, all)
	load, _ := os.ReadFile("/proc/loadavg")
	b.Logf("load of the machine at the end, with these programs: %s", load)
}

// planesRTT is planes without the measurements that keep the machine busy.
func planesRTT(b *bench) { pingPongs(b, planeTunnels(b), "on") }

// planeTunnels makes the tunnels of BENCH_ONLY: wireguard-go, ours alone (end) and in whole
// nodes, the least loop that there can be, and nebula if BENCH_NEBULA names the directory of
// its programs.
func planeTunnels(b *bench) []*tunnel {
	l := lab.New(b, b.bin)
	host := l.Host("server")
	server := l.Serve(host, ":8443", "https://"+host.Addr+":8443")
	a, z := l.Host("a"), l.Host("z")
	only := strings.Fields(os.Getenv("BENCH_ONLY"))
	var all []*tunnel
	add := func(key string, make func() *tunnel) {
		if len(only) == 0 || slices.Contains(only, key) {
			all = append(all, make())
		}
	}
	add("plain", func() *tunnel { return plainWireGuard(b, l, a, z) })
	add("raw", func() *tunnel { return planeEnds(b, l, a, z, "raw", "66", "5321") })
	add("end-wireguard", func() *tunnel { return planeEnds(b, l, a, z, "wireguard", "67", "5322") })
	add("end-aes", func() *tunnel { return planeEnds(b, l, a, z, "aes", "68", "5323") })
	for i, suite := range []string{"wireguard", "aes"} {
		add("weft-"+suite, func() *tunnel {
			x, y := l.Host("x"+suite[:1]), l.Host("y"+suite[:1])
			return weftPair(b, l, server, x, y, "weft, suite "+suite, strconv.Itoa(5324+i), true, true, false, "direct", "--suite", suite)
		})
		add("user-"+suite, func() *tunnel {
			x, y := l.Host("u"+suite[:1]), l.Host("v"+suite[:1])
			return weftPair(b, l, server, x, y, "weft in user space, suite "+suite, strconv.Itoa(5328+i), false, false, false, "direct", "--suite", suite)
		})
		add("relay-"+suite, func() *tunnel {
			x, y := l.Host("r"+suite[:1]), l.Host("s"+suite[:1])
			x.NFT("table inet way { chain in { type filter hook input priority 0; iifname eth0 meta l4proto udp drop; }; }\n")
			t := weftPair(b, l, server, x, y, "weft by relay, suite "+suite, strconv.Itoa(5326+i), true, true, false, "relay", "--suite", suite)
			t.procs = append(t.procs, server.Proc)
			return t
		})
	}
	if dir := os.Getenv("BENCH_NEBULA"); dir != "" {
		add("nebula", func() *tunnel { return nebula(b, l, a, z, dir) })
	}
	return all
}

// planeEnds is two ends with kernel interfaces.
func planeEnds(b *bench, l *lab.Lab, a, z *lab.Namespace, suite, subnet, port string) *tunnel {
	t := &tunnel{name: "data path alone, " + suite, from: a, to: "100." + subnet + ".0.2", port: port}
	flags := func(side string) []string {
		return []string{"-tun", "p" + side + subnet, "-subnet", subnet, "-suite", suite}
	}
	twoEnds(b, l, a, z, t, flags("a"), flags("z"))
	serveIperf(b, z, t.port)
	ready(b, a, t.to+":"+t.port)
	t.echo = t.to + ":7"
	z.EchoTCP(t.echo)
	return t
}

// nebula is a tunnel of nebula with AES and sockets of 7 MB.
func nebula(b *bench, l *lab.Lab, a, z *lab.Namespace, dir string) *tunnel {
	t := &tunnel{name: "nebula, AES", from: a, to: "192.168.99.2", port: "5330", echo: "192.168.99.2:7"}
	work := filepath.Join(l.Dir, "nebula")
	if err := os.Mkdir(work, 0o755); err != nil {
		b.Fatalf("%v", err)
	}
	cert := filepath.Join(dir, "nebula-cert")
	run := func(args ...string) {
		if r := a.Run(lab.Root, append([]string{cert}, args...)...); r.Code != 0 {
			b.Fatalf("nebula-cert %v: %s%s", args, r.Out, r.Err)
		}
	}
	run("ca", "-name", "bench", "-out-crt", work+"/ca.crt", "-out-key", work+"/ca.key")
	for i, n := range []*lab.Namespace{a, z} {
		name := string("az"[i])
		run("sign", "-ca-crt", work+"/ca.crt", "-ca-key", work+"/ca.key", "-name", name, "-ip", fmt.Sprintf("192.168.99.%d/24", i+1),
			"-out-crt", work+"/"+name+".crt", "-out-key", work+"/"+name+".key")
		other := []*lab.Namespace{z, a}[i]
		config := fmt.Sprintf(`pki: {ca: %[1]s/ca.crt, cert: %[1]s/%[2]s.crt, key: %[1]s/%[2]s.key}
static_host_map: {"192.168.99.%[3]d": ["%[4]s:4242"]}
lighthouse: {am_lighthouse: false}
listen: {host: 0.0.0.0, port: 4242, read_buffer: 7340032, write_buffer: 7340032}
cipher: aes
tun: {dev: neb%[2]s, mtu: 1420}
firewall: {outbound: [{port: any, proto: any, host: any}], inbound: [{port: any, proto: any, host: any}]}
`, work, name, 2-i, other.Addr)
		file := work + "/" + name + ".yml"
		if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
			b.Fatalf("%v", err)
		}
		t.procs = append(t.procs, n.Start(lab.Root, filepath.Join(dir, "nebula"), "-config", file))
	}
	serveIperf(b, z, t.port)
	ready(b, a, t.to+":"+t.port)
	z.EchoTCP(t.echo)
	return t
}

// smallPackets sends UDP packets of 200 bytes through each tunnel, in turns, as fast as
// iperf3 can, and reports how many arrive.
func smallPackets(b *bench, all []*tunnel) {
	rates, cpus := map[*tunnel][]float64{}, map[*tunnel][]float64{}
	for range b.runs {
		for _, t := range all {
			if t.to == "127.0.0.1" { // iperf3 sends UDP to the address of its TCP connection
				continue
			}
			before := used(t.procs)
			n := udpPackets(b, t)
			rates[t] = append(rates[t], n/flowTime.Seconds())
			cpus[t] = append(cpus[t], (used(t.procs)-before).Seconds()/n*1e6)
		}
	}
	for _, t := range all {
		b.row(fmt.Sprintf("%s, UDP of 200 bytes received per second", t.name), "/s", rates[t], "")
		b.row("  processor seconds per million of them, all of it", "s", cpus[t], "")
	}
}

func kernelEnds(b *bench, l *lab.Lab, a, z *lab.Namespace) *tunnel {
	t := &tunnel{name: "weft's data path, TUN - TUN", from: a, to: "100.64.0.2", port: "5302"}
	twoEnds(b, l, a, z, t, []string{"-tun", "wefta", "-pprof", "127.0.0.1:6060"}, []string{"-tun", "weftz", "-pprof", "127.0.0.1:6060"})
	serveIperf(b, z, t.port)
	ready(b, a, t.to+":"+t.port)
	return t
}

func mixedEnds(b *bench, l *lab.Lab, a, z *lab.Namespace) *tunnel {
	t := &tunnel{name: "data path, user space - TUN", from: a, to: "127.0.0.1", port: "5303"}
	twoEnds(b, l, a, z, t, []string{"-forward", t.port, "-subnet", "65", "-pprof", "127.0.0.1:6061"}, []string{"-tun", "weftm", "-subnet", "65", "-pprof", "127.0.0.1:6061"})
	serveIperf(b, z, t.port)
	ready(b, a, t.to+":"+t.port)
	return t
}

func userEnds(b *bench, l *lab.Lab, a, z *lab.Namespace) *tunnel {
	t := &tunnel{name: "user space - user space, forward", from: a, to: "127.0.0.1", port: "5304"}
	twoEnds(b, l, a, z, t, []string{"-forward", t.port, "-pprof", "127.0.0.1:6062"}, []string{"-pprof", "127.0.0.1:6062"})
	serveIperf(b, z, t.port)
	ready(b, a, t.to+":"+t.port)
	return t
}

// setOffloads switches segmentation and receive offloads of an interface on or off,
// like ethtool -K.
func setOffloads(b *bench, n *lab.Namespace, dev string, on bool) {
	type value struct{ cmd, data uint32 }
	type ifreq struct {
		name [unix.IFNAMSIZ]byte
		data uintptr
		_    [16]byte
	}
	n.Do(func() {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
		if err != nil {
			b.Fatalf("%v", err)
		}
		defer unix.Close(fd)
		for _, cmd := range []uint32{unix.ETHTOOL_STSO, unix.ETHTOOL_SGSO, unix.ETHTOOL_SGRO} {
			v := &value{cmd: cmd}
			if on {
				v.data = 1
			}
			var r ifreq
			copy(r.name[:], dev)
			r.data = uintptr(unsafe.Pointer(v))
			if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&r))); errno != 0 {
				b.Fatalf("ethtool %d on %s: %v", cmd, dev, errno)
			}
		}
	})
}
