// Command end is one end of a tunnel without a node: a data plane over the socket of
// package bind, with a network in user space or of the kernel. The two ends find each
// other through files in a directory. scripts/bench (part "ends") starts two to measure
// what the data path costs alone.
package main

import (
	"context"
	"encoding/hex"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	_ "net/http/pprof"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"weft/netstack"
	"weft/overlay"
	"weft/overlay/api"
	"weft/overlay/cert"
	"weft/overlay/internal/bind"
	"weft/overlay/internal/dataplane"
	"weft/overlay/internal/filter"
	"weft/overlay/internal/gcm"
	"weft/overlay/internal/wg"
	"weft/overlay/tun"
)

func main() {
	name := flag.String("name", "a", "a, or b: b starts the handshake")
	peerAddr := flag.String("peer", "", "IP address of the other end")
	dir := flag.String("dir", "", "directory through which the ends find each other")
	kernel := flag.String("tun", "", "kernel interface; default: user space")
	subnet := flag.Int("subnet", 64, "N in 100.N.0.0/16: the ends are 100.N.0.1 and 100.N.0.2")
	mtu := flag.Int("mtu", 1420, "MTU of the inner network, in bytes")
	limit := flag.Int("limit", 1472, "longest UDP payload that the path carries, in bytes")
	forward := flag.Int("forward", 0, "loopback port to forward to the same port of the other end")
	suite := flag.String("suite", "wireguard", "data plane: wireguard, aes, or raw: AES-GCM without peers, filter, epochs and windows")
	pprof := flag.String("pprof", "", "address at which to serve pprof")
	flag.Parse()
	fmt.Fprintln(os.Stderr, run(*name, *peerAddr, *dir, *kernel, *subnet, *mtu, *limit, *forward, *suite, *pprof))
	os.Exit(1)
}

// run runs one end until the process is killed. It returns only when it fails.
func run(name, peerAddr, dir, kernel string, subnet, mtu, limit, forward int, suite, pprof string) error {
	if pprof != "" {
		go http.ListenAndServe(pprof, nil)
	}
	self, other, peer := netip.AddrFrom4([4]byte{100, byte(subnet), 0, 1}), netip.AddrFrom4([4]byte{100, byte(subnet), 0, 2}), "b"
	if name == "b" {
		self, other, peer = other, self, "a"
	}
	var network overlay.Net
	if kernel != "" {
		n, err := tun.New(tun.Config{Name: kernel, MTU: mtu})
		if err != nil {
			return err
		}
		if err := n.SetRanges(netip.PrefixFrom(self, 16).Masked(), netip.Prefix{}); err != nil {
			return err
		}
		if err := n.SetAddrs(self, netip.Addr{}); err != nil {
			return err
		}
		network = n
	} else {
		n, err := netstack.New(netstack.Config{MTU: mtu})
		if err != nil {
			return err
		}
		if err := n.SetAddrs(self, netip.Addr{}); err != nil {
			return err
		}
		n.SetInbound(netstack.Inbound{TCP: func(src, dst netip.AddrPort) (string, bool) { return "", true }})
		if forward != 0 {
			go forwardTo(n, forward, netip.AddrPortFrom(other, uint16(forward)))
		}
		network = n
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	b := bind.New(bind.Config{Listen: bind.Listen, SendFailed: func(_ *bind.Endpoint, w bind.Path, err error) { log.Warn("send failed", "path", w, "err", err) }})
	forwarder := func() *dataplane.Forwarder { return dataplane.New(dataplane.Config{Net: network}) }
	var plane dataplane.Plane
	var key [32]byte
	var err error
	switch suite {
	case "wireguard":
		var dev *wg.Device
		if dev, err = wg.New(wg.Config{Forwarder: forwarder(), Bind: b, Log: log}); err == nil {
			plane, key = dev, dev.PublicKey()
		}
	case "aes":
		plane, err = gcm.New(gcm.Config{Forwarder: forwarder(), Bind: b, Log: log, Alone: true})
	case "raw":
		plane, err = newRaw(network, b, limit)
	default:
		err = fmt.Errorf("no suite %q", suite)
	}
	if err != nil {
		return err
	}
	if err := b.ListenError(); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, name+".tmp"), fmt.Appendf(nil, "%d %x", b.Port(), key[:]), 0o644); err != nil {
		return err
	}
	if err := os.Rename(filepath.Join(dir, name+".tmp"), filepath.Join(dir, name)); err != nil {
		return err
	}
	var port uint16
	var theirs [32]byte
	for {
		if text, err := os.ReadFile(filepath.Join(dir, peer)); err == nil {
			p, k, _ := strings.Cut(string(text), " ")
			fmt.Sscan(p, &port)
			raw, _ := hex.DecodeString(k)
			copy(theirs[:], raw)
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	id := cert.NodeID{peer[0]}
	ep := bind.NewEndpoint(id, other)
	path := bind.Path{Kind: bind.Direct, Addr: netip.AddrPortFrom(netip.MustParseAddr(peerAddr), port)}
	if err := ep.SetPath(path, limit); err != nil {
		return err
	}
	rules := []api.Rule{{From: []string{"*"}, Ports: []api.PortRange{{Proto: "*", First: 0, Last: 65535}}}}
	err = plane.SetPeer(dataplane.Peer{
		ID: id, Key: theirs, Claim: dataplane.Claimed, Secret: [32]byte{1}, IPs: []netip.Addr{other}, Endpoint: ep,
		Filter: filter.NewPeer([]netip.Addr{self}, []netip.Addr{other}, filter.Compile(rules, &cert.Node{}, filter.Terms{})), Initiate: name == "b",
	})
	if err != nil {
		return err
	}
	b.Admit(ep)
	b.Verify(ep, path)
	fmt.Println("up")
	select {}
}

func forwardTo(n *netstack.Net, port int, to netip.AddrPort) {
	ln, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			r, err := n.DialAddrPort(context.Background(), "tcp", to)
			if err != nil {
				fmt.Fprintln(os.Stderr, err)
				return
			}
			defer r.Close()
			done := make(chan struct{})
			go func() {
				defer close(done)
				io.Copy(r, c)
				r.(*netstack.TCPConn).CloseWrite()
			}()
			io.Copy(c, r)
			c.(*net.TCPConn).CloseWrite()
			<-done
		}()
	}
}
