package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"weft/cmd/internal/cli"
	"weft/overlay/localapi"
	"weft/overlay/proxy"
	"weft/overlay/proxy/pipe"
	"weft/overlay/status"
)

// Bounds of one forward.
const (
	maxForwardConns = 1024
	maxForwardFlows = 256 // UDP senders at once
	forwardFlowIdle = 60 * time.Second
)

func forwardCmd() *cobra.Command {
	var udp bool
	var asJSON *bool
	cmd := &cobra.Command{
		Use:   "forward [LOCAL:]NAME:PORT...",
		Short: "Forward a local port to a port of a device, until interrupted",
		Long: `Forward a port of this machine, on loopback only, to a port of a device, until
interrupted. LOCALPORT 0 picks a free port; --json prints it, once all listen.

  weft forward 8080:kitchen-pi:80
  weft forward --udp 5353:kitchen-pi:53`,
		Args: args(cobra.MinimumNArgs(1)),
		ValidArgsFunction: func(cmd *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
			local, name, ok := strings.Cut(typed, ":")
			if !ok {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return deviceNames(cmd, local+":", name), cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
		},
		RunE: func(cmd *cobra.Command, a []string) error {
			var all []forwardSpec
			for _, s := range a {
				f, err := parseForward(s)
				if err != nil {
					return err
				}
				all = append(all, f)
			}
			return forward(cmd, all, udp, *asJSON)
		},
	}
	cmd.Use = "forward LOCALPORT:NAME:PORT..."
	asJSON = cli.JSONFlag(cmd)
	cmd.Flags().BoolVar(&udp, "udp", false, "forward UDP instead of TCP")
	return cmd
}

// forwardSpec is LOCALPORT:NAME:PORT.
type forwardSpec struct {
	local uint16
	name  string
	port  uint16
}

func (f forwardSpec) target() string {
	return net.JoinHostPort(f.name, strconv.Itoa(int(f.port)))
}

// parseForward parses LOCALPORT:NAME:PORT; an IPv6 address as the name is in brackets.
func parseForward(s string) (forwardSpec, error) {
	bad := usagef("%q is not LOCALPORT:NAME:PORT, for example 8080:kitchen-pi:80", cli.Plain(s))
	local, rest, ok := strings.Cut(s, ":")
	if !ok {
		return forwardSpec{}, bad
	}
	name, port, err := net.SplitHostPort(rest)
	if err != nil {
		return forwardSpec{}, bad
	}
	f := forwardSpec{}
	if local != "0" {
		if f.local, err = parsePort(local); err != nil {
			return forwardSpec{}, bad
		}
	}
	if f.port, err = parsePort(port); err != nil {
		return forwardSpec{}, bad
	}
	f.name, err = status.CleanName(name)
	return f, err
}

func parsePort(s string) (uint16, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n == 0 || s[0] == '+' {
		return 0, usagef("%q is not a port: want 1 to 65535", cli.Plain(s))
	}
	return uint16(n), nil
}

// forward opens all listeners, then serves until interrupted. Known errors (no daemon,
// no such device) are reported before anything listens.
func forward(cmd *cobra.Command, all []forwardSpec, udp, asJSON bool) error {
	c := client(cmd)
	for _, f := range all {
		p, err := c.Resolve(cmd.Context(), f.name)
		if err != nil {
			return err
		}
		if p.Self {
			return usagef("%s is this device; use localhost", f.name)
		}
	}
	ctx, cancel := context.WithCancelCause(cmd.Context())
	defer cancel(nil)
	var wg sync.WaitGroup
	defer wg.Wait()
	type forwarded struct {
		Local  string `json:"local"`
		Device string `json:"device"`
		Port   uint16 `json:"port"`
	}
	var ready []forwarded
	for _, f := range all {
		addr := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), f.local)
		warn := func(err error) {
			fmt.Fprintf(cmd.ErrOrStderr(), "weft: %s: %s\n", f.target(), oneLine(err.Error()))
		}
		var at net.Addr
		if udp {
			pc, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(addr))
			if err != nil {
				cancel(err)
				return listenError(f, err)
			}
			at = pc.LocalAddr()
			wg.Go(func() { cancel(forwardUDP(ctx, pc, c, f, warn)) })
		} else {
			l, err := proxy.Listen(addr.String())
			if err != nil {
				cancel(err)
				return listenError(f, err)
			}
			at = l.Addr()
			wg.Go(func() { cancel(forwardTCP(ctx, l.(*net.TCPListener), c, f, warn)) })
		}
		ready = append(ready, forwarded{at.String(), f.name, f.port})
		if !asJSON {
			fmt.Fprintf(cmd.ErrOrStderr(), "forwarding %s to %s\n", at, f.target())
		}
	}
	if asJSON {
		if err := cli.PrintObject(cmd.OutOrStdout(), "forward/1", map[string]any{"forwards": ready}); err != nil {
			cancel(err)
			return err
		}
	}
	<-ctx.Done()
	if err := context.Cause(ctx); !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

func listenError(f forwardSpec, err error) error {
	return &status.Error{Kind: status.KindFailed, Message: fmt.Sprintf("listen on port %d: %v", f.local, errors.Unwrap(err)), Hint: "choose another local port, or 0 for a free one"}
}

// forwardTCP serves l until ctx ends.
func forwardTCP(ctx context.Context, l *net.TCPListener, c *localapi.Client, f forwardSpec, warn func(error)) error {
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	defer l.Close()
	slots := make(chan struct{}, maxForwardConns)
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		conn, err := l.AcceptTCP()
		if err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if sleep(ctx, 50*time.Millisecond) != nil {
				return ctx.Err()
			}
			continue
		}
		// A peer connects through the overlay: a forward is not a target.
		if proxy.FromOverlay(conn.RemoteAddr()) {
			conn.Close()
			continue
		}
		select {
		case slots <- struct{}{}:
		default:
			conn.Close()
			continue
		}
		wg.Go(func() {
			defer func() { <-slots }()
			defer conn.Close()
			remote, err := c.DialContext(ctx, "tcp", f.target())
			if err != nil {
				if ctx.Err() == nil {
					warn(err)
				}
				conn.SetLinger(0) // a reset, as from a port without a listener
				return
			}
			stop := context.AfterFunc(ctx, func() { conn.Close(); remote.Close() })
			defer stop()
			if s, ok := remote.(*localapi.StreamConn); ok {
				s.Join(conn)
				return
			}
			pipe.Join(conn, remote)
		})
	}
}

// udpFlow is one local sender.
type udpFlow struct {
	send chan []byte
	last time.Time // guarded by the mutex in forwardUDP
	end  context.CancelFunc
}

// forwardUDP serves pc until ctx ends, with one connection over the overlay per local
// sender, which is dropped after forwardFlowIdle.
func forwardUDP(ctx context.Context, pc *net.UDPConn, c *localapi.Client, f forwardSpec, warn func(error)) error {
	stop := context.AfterFunc(ctx, func() { pc.Close() })
	defer stop()
	defer pc.Close()
	var wg sync.WaitGroup
	defer wg.Wait()

	var mu sync.Mutex // guards the following
	flows := map[netip.AddrPort]*udpFlow{}

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	wg.Go(func() {
		t := time.NewTicker(forwardFlowIdle / 4)
		defer t.Stop()
		for {
			select {
			case now := <-t.C:
				mu.Lock()
				for _, fl := range flows {
					if now.Sub(fl.last) > forwardFlowIdle {
						fl.end()
					}
				}
				mu.Unlock()
			case <-ctx.Done():
				return
			}
		}
	})

	buf := make([]byte, 64<<10)
	for {
		n, from, err := pc.ReadFromUDPAddrPort(buf)
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return ctx.Err()
			}
			continue
		}
		if proxy.FromOverlay(net.UDPAddrFromAddrPort(from)) {
			continue
		}
		mu.Lock()
		fl := flows[from]
		if fl == nil && len(flows) < maxForwardFlows {
			flowCtx, end := context.WithCancel(ctx)
			fl = &udpFlow{send: make(chan []byte, 16), end: end}
			flows[from] = fl
			wg.Go(func() {
				err := runUDPFlow(flowCtx, pc, from, c, f, fl, func() { mu.Lock(); fl.last = time.Now(); mu.Unlock() })
				if err != nil && flowCtx.Err() == nil {
					warn(err)
				}
				end()
				mu.Lock()
				delete(flows, from)
				mu.Unlock()
			})
		}
		if fl != nil {
			fl.last = time.Now()
			select {
			case fl.send <- append([]byte(nil), buf[:n]...):
			default: // faster than the tunnel: drop it
			}
		}
		mu.Unlock()
	}
}

// runUDPFlow copies datagrams both ways until ctx or the tunnel ends.
func runUDPFlow(ctx context.Context, pc *net.UDPConn, from netip.AddrPort, c *localapi.Client, f forwardSpec, fl *udpFlow, used func()) error {
	remote, err := c.DialContext(ctx, "udp", f.target())
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { remote.Close() })
	defer stop()
	defer remote.Close()
	done := make(chan error, 1)
	go func() {
		buf := make([]byte, 64<<10)
		for {
			n, err := remote.Read(buf)
			if err != nil {
				if err == io.EOF {
					err = nil
				}
				done <- err
				return
			}
			used()
			pc.WriteToUDPAddrPort(buf[:n], from)
		}
	}()
	for {
		select {
		case b := <-fl.send:
			if _, err := remote.Write(b); err != nil {
				remote.Close()
				<-done
				return err
			}
		case err := <-done:
			return err
		case <-ctx.Done():
			remote.Close()
			<-done
			return nil
		}
	}
}
