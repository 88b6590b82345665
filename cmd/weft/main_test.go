package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"weft/dns"
	"weft/overlay/api"
	"weft/overlay/localapi"
	"weft/overlay/proxy"
	"weft/overlay/status"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"weft":      main,
		"weft-fake": fakeDaemon, // a daemon whose node is fakeNode
		"tcp-echo":  tcpEcho,    // FILE: a server that writes its address to FILE
		"send":      send,       // tcp|udp ADDR: sends stdin to ADDR, prints the answer
	})
}

// TestScripts runs the command line as users do, against a daemon with fakeNode:
// testdata/script/*.txtar.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			// A socket path must be short.
			dir, err := os.MkdirTemp("", "weft")
			if err != nil {
				return err
			}
			env.Defer(func() { os.RemoveAll(dir) })
			env.Setenv("SOCK", dir+"/d/s")
			if err := os.Mkdir(dir+"/r", 0o700); err != nil {
				return err
			}
			env.Setenv("XDG_RUNTIME_DIR", dir+"/r")
			env.Setenv("XDG_STATE_HOME", dir+"/x")
			env.Setenv("WEFT_SOCKET", dir+"/d/s")
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			// code N CMD ARGS...: runs a program and expects exactly this exit code.
			"code": func(ts *testscript.TestScript, neg bool, args []string) {
				err := ts.Exec(args[1], args[2:]...)
				got := 0
				var exit interface{ ExitCode() int }
				if errors.As(err, &exit) {
					got = exit.ExitCode()
				} else if err != nil {
					ts.Fatalf("%v", err)
				}
				if fmt.Sprint(got) != args[0] {
					ts.Fatalf("exit code %d, want %s", got, args[0])
				}
			},
			// waitfor FILE: waits until it exists.
			"waitfor": func(ts *testscript.TestScript, neg bool, args []string) {
				end := time.Now().Add(10 * time.Second)
				for {
					if _, err := os.Stat(ts.MkAbs(args[0])); err == nil {
						return
					}
					if time.Now().After(end) {
						ts.Fatalf("%s did not appear", args[0])
					}
					time.Sleep(10 * time.Millisecond)
				}
			},
			// setfrom VAR FILE: sets VAR to the file's content, after waiting for it.
			"setfrom": func(ts *testscript.TestScript, neg bool, args []string) {
				end := time.Now().Add(10 * time.Second)
				for {
					if b, _ := os.ReadFile(ts.MkAbs(args[1])); strings.HasSuffix(string(b), "\n") {
						ts.Setenv(args[0], strings.TrimSpace(string(b)))
						return
					}
					if time.Now().After(end) {
						ts.Fatalf("%s did not appear", args[1])
					}
					time.Sleep(10 * time.Millisecond)
				}
			},
			// retry CMD ARGS...: repeats it until it succeeds.
			"retry": func(ts *testscript.TestScript, neg bool, args []string) {
				end := time.Now().Add(10 * time.Second)
				for ts.Exec(args[0], args[1:]...) != nil {
					if time.Now().After(end) {
						ts.Fatalf("%s never succeeded", args[0])
					}
					time.Sleep(50 * time.Millisecond)
				}
			},
			// freeport VAR: sets VAR to a free port on loopback.
			"freeport": func(ts *testscript.TestScript, neg bool, args []string) {
				l, err := net.Listen("tcp", "127.0.0.1:0")
				ts.Check(err)
				defer l.Close()
				ts.Setenv(args[0], fmt.Sprint(l.Addr().(*net.TCPAddr).Port))
			},
			// waitport PORT: waits until a program accepts there.
			"waitport": func(ts *testscript.TestScript, neg bool, args []string) {
				end := time.Now().Add(10 * time.Second)
				for {
					c, err := net.Dial("tcp", "127.0.0.1:"+args[0])
					if err == nil {
						c.Close()
						return
					}
					if time.Now().After(end) {
						ts.Fatalf("nobody listens on %s", args[0])
					}
					time.Sleep(10 * time.Millisecond)
				}
			},
		},
	})
}

// fakeNode knows a handful of devices. Its "overlay" is this machine: every port of
// kitchen-pi is the echo server at $ECHO.
type fakeNode struct {
	state  status.State
	token  string
	signIn *status.SignIn // as a token has it
	pinged atomic.Int32   // number of pings of fd00:77::2
}

var fakePeers = []status.Peer{
	{ID: "11111111111111111111111111111111", Name: "laptop", FQDN: "laptop.weft.internal", IPv4: netip.MustParseAddr("100.64.0.1"), IPv6: netip.MustParseAddr("fd00:77::1"), Online: true, Self: true},
	{ID: "22222222222222222222222222222222", Name: "kitchen-pi", FQDN: "kitchen-pi.weft.internal", IPv4: netip.MustParseAddr("100.64.0.2"), IPv6: netip.MustParseAddr("fd00:77::2"), Online: true},
	{ID: "33333333333333333333333333333333", Name: "attic", FQDN: "attic.weft.internal", IPv4: netip.MustParseAddr("100.64.0.3"), IPv6: netip.MustParseAddr("fd00:77::3")},
	{ID: "44444444444444444444444444444444", Name: "vault", FQDN: "vault.weft.internal", IPv4: netip.MustParseAddr("100.64.0.4"), IPv6: netip.MustParseAddr("fd00:77::4"), Online: true},
	{ID: "55555555555555555555555555555555", Name: "slow", FQDN: "slow.weft.internal", IPv4: netip.MustParseAddr("100.64.0.5"), Online: true},
}

func (n *fakeNode) Status() status.Status {
	st := status.Status{State: n.state, Version: "1.2.3"}
	if n.state == status.StateUnjoined {
		return st
	}
	seen := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	said, asked := seen.Add(90*time.Minute), seen.Add(78*time.Minute)
	st.Time = &said
	rtt := 1.5
	st.Network = "0123456789abcdef0123456789abcdef"
	st.Server = status.ServerStatus{URL: "https://server.example:8443", Online: true}
	for _, p := range fakePeers {
		v4, v6 := p.IPv4.String(), ""
		if p.IPv6.IsValid() {
			v6 = p.IPv6.String()
		}
		if p.Self {
			st.Self = status.SelfStatus{ID: p.ID, Name: p.Name, FQDN: p.FQDN, IPv4: v4, IPv6: v6, Online: true, Relay: "home", SignIn: n.signIn}
			continue
		}
		ps := status.PeerStatus{ID: p.ID, Name: p.Name, FQDN: p.FQDN, IPv4: v4, IPv6: v6, Online: p.Online, Path: status.PathIdle}
		switch p.Name {
		case "kitchen-pi":
			ps.Path, ps.RTTms, ps.RxBytes, ps.TxBytes, ps.KeyExchange = status.PathRelay, &rtt, 1234567, 99, "X25519MLKEM768"
			ps.Suite = "wireguard"
			ps.LastHandshake, ps.PresenceAt, ps.LastSeen = &seen, &said, &said
			ps.PathReason, ps.PathNote = "both sides are behind NATs that give each destination another port", "both behind hard NATs"
		case "attic":
			ps.Path, ps.LastSeen, ps.PresenceAt = status.PathOffline, &seen, &said
		case "vault":
			ps.PresenceAt = &asked
		}
		st.Peers = append(st.Peers, ps)
	}
	return st
}

func (n *fakeNode) Look(ctx context.Context, name string) (status.Status, error) {
	if name != "" {
		if _, err := n.Resolve(ctx, name); err != nil {
			return status.Status{}, err
		}
	}
	return n.Status(), nil
}

func (n *fakeNode) Up(ctx context.Context, token string) error {
	switch {
	case token == "" && n.state == status.StateUnjoined:
		return &status.Error{Kind: status.KindNotJoined, Message: "this device has not joined a network", Hint: "run: weft up TOKEN"}
	case token == "weft1expired":
		return &status.Error{Kind: status.KindDenied, Message: "the token has expired", Hint: "make another with: weft-server keys create"}
	case strings.HasPrefix(token, "weft1due"), strings.HasPrefix(token, "weft1overdue"):
		// It has to be signed in again, and the server does what the rest says.
		n.signIn = &status.SignIn{Due: time.Date(2026, 1, 9, 12, 0, 0, 0, time.UTC), Soon: true, Overdue: strings.HasPrefix(token, "weft1overdue")}
	case token == "weft1later":
		n.signIn = &status.SignIn{Due: time.Date(2026, 1, 9, 12, 0, 0, 0, time.UTC)}
	case token == "weft1pending":
		n.state = status.StatePending
		return nil
	}
	n.state = status.StateRunning
	if token != "" {
		n.token = token
	}
	return nil
}

// Ask asks fake servers: their names say what becomes of it.
func (n *fakeNode) Ask(ctx context.Context, server, fingerprint string, shown func(status.Asked)) error {
	print := strings.TrimSuffix(strings.Repeat("AB:", 32), ":")
	code := status.Asked{Code: "BCDFG-HJKLM", URL: server + "/approve?code=BCDFG-HJKLM", Expires: time.Now().Add(10 * time.Minute)}
	if server == "" { // to be signed in again
		code.SignIn, code.URL = true, "https://server.example:8443/approve?code=BCDFG-HJKLM"
		switch {
		case strings.Contains(n.token, "away"):
			return &status.Error{Kind: status.KindUnavailable, Message: "sign in again: cannot reach the server", Hint: "check the address"}
		case strings.Contains(n.token, "denies"):
			shown(code)
			return &status.Error{Kind: status.KindDenied, Message: "the request was denied"}
		}
		shown(code)
		n.signIn = &status.SignIn{Due: n.signIn.Due.AddDate(0, 1, 0)}
		return nil
	}
	switch {
	case strings.Contains(server, "unknown") && fingerprint == "":
		shown(status.Asked{Fingerprint: print})
		return &status.Error{Kind: status.KindDenied, Message: "the certificate of the server at " + server + " is not trusted here: its fingerprint is " + print, Hint: "add: --fingerprint " + print}
	case strings.Contains(server, "unknown") && fingerprint != print:
		return &status.Error{Kind: status.KindDenied, Message: "another fingerprint"}
	case strings.Contains(server, "denies"):
		shown(code)
		return &status.Error{Kind: status.KindDenied, Message: "the request to join was denied"}
	case strings.Contains(server, "waits"):
		shown(code)
		os.WriteFile("asked", nil, 0o600)
		<-ctx.Done()
		os.WriteFile("withdrawn", nil, 0o600)
		return ctx.Err()
	case strings.Contains(server, "restarts"):
		shown(code)
		code.Code = "NPQRS-TVWXZ"
	}
	shown(code)
	n.state = status.StateRunning
	return nil
}

func (n *fakeNode) Down(context.Context) error { n.state = status.StateDown; return nil }
func (n *fakeNode) Logout(context.Context) error {
	n.state = status.StateUnjoined
	return nil
}

func (n *fakeNode) Resolve(ctx context.Context, name string) (status.Peer, error) {
	name = strings.TrimSuffix(strings.TrimSuffix(strings.ToLower(name), "."), ".weft.internal")
	for _, p := range fakePeers {
		if p.Name == name || p.IPv4.String() == name || p.IPv6.String() == name {
			return p, nil
		}
	}
	if name == "elsewhere" {
		return status.Peer{}, &status.Error{Kind: status.KindUnavailable, Message: "elsewhere is not known here and the server is away"}
	}
	return status.Peer{}, &status.Error{Kind: status.KindUnknown, Message: "there is no device " + name, Hint: "see: weft status"}
}

var fakeNames = &status.Names{
	Ready: true, Serial: 7, Suffix: "weft.internal", Complete: true, Peers: fakePeers,
	IPv4: netip.MustParsePrefix("100.64.0.0/10"), IPv6: netip.MustParsePrefix("fd00:77::/48"),
}

func (n *fakeNode) Names() *status.Names {
	if n.state == status.StateUnjoined {
		return &status.Names{}
	}
	return fakeNames
}

func (n *fakeNode) reach(ctx context.Context, name string) (status.Peer, error) {
	p, err := n.Resolve(ctx, name)
	if err != nil {
		return p, err
	}
	switch p.Name {
	case "attic":
		return p, &status.Error{Kind: status.KindUnreachable, Message: "attic is offline, last seen 2026-01-02 03:04"}
	case "vault":
		return p, &status.Error{Kind: status.KindDenied, Message: "vault does not let laptop in", Hint: "the owner can change that under Access in the console"}
	case "slow":
		<-ctx.Done()
		return p, &status.Error{Kind: status.KindTimeout, Message: "slow did not answer in time"}
	}
	return p, nil
}

func (n *fakeNode) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	name, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if _, err := n.reach(ctx, name); err != nil {
		return nil, err
	}
	if port == "1" {
		return nil, &status.Error{Kind: status.KindRefused, Message: name + " refused the connection on port 1"}
	}
	var d net.Dialer
	return d.DialContext(ctx, network, os.Getenv("ECHO"))
}

func (n *fakeNode) Ping(ctx context.Context, name string) (status.Pong, error) {
	p, err := n.reach(ctx, name)
	if err != nil {
		return status.Pong{}, err
	}
	if name == "fd00:77::2" && n.pinged.Add(1) == 2 {
		os.WriteFile("pinged", nil, 0o600) // the first reply has been printed
	}
	return status.Pong{Peer: p, Addr: p.IPv4, RTT: 1234 * time.Microsecond, Path: status.PathRelay, Relay: "home"}, nil
}

func (n *fakeNode) Wait(ctx context.Context, name string) error {
	if n.state != status.StateRunning {
		<-ctx.Done()
		return &status.Error{Kind: status.KindTimeout, Message: "not connected to a relay yet"}
	}
	if name != "" {
		_, err := n.reach(ctx, name)
		return err
	}
	return nil
}

func (*fakeNode) DNS() *api.DNS { return nil }

func (n *fakeNode) Relays() []status.Relay { return nil }

// fakeDaemon is weft run with a fakeNode: --joined starts it joined.
func fakeDaemon() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	node := &fakeNode{state: status.StateUnjoined}
	if len(os.Args) > 1 && os.Args[1] == "--joined" {
		node.state = status.StateRunning
	}
	l, err := localapi.Listen(os.Getenv("WEFT_SOCKET"), "")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	defer noteSocket(os.Getenv("WEFT_SOCKET"))()
	resolver := dns.New(dnsConfig(node, slog.New(slog.DiscardHandler)))
	srv := localapi.NewServer(localapi.ServerConfig{Node: node, DNS: queryDNS(resolver), Resolver: resolverAPI(resolver)})
	go srv.Serve(l)
	pl, err := proxy.Listen("127.0.0.1:0")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	px := proxy.New(proxy.Config{Node: node})
	go px.Serve(pl)
	os.WriteFile("proxy", []byte(pl.Addr().String()+"\n"), 0o600)
	<-ctx.Done()
	px.Close()
	srv.Close()
	resolver.Close()
}

// tcpEcho serves TCP and UDP on one port: it answers with the received data in
// capitals, once the client has sent everything (TCP), or at once (UDP).
func tcpEcho() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	pc, err := net.ListenPacket("udp", l.Addr().String())
	if err != nil {
		panic(err)
	}
	os.WriteFile(os.Args[1], []byte(l.Addr().String()+"\n"), 0o600)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				b, _ := io.ReadAll(c)
				io.WriteString(c, strings.ToUpper(string(b)))
			}()
		}
	}()
	go func() {
		buf := make([]byte, 64<<10)
		for {
			n, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			pc.WriteTo([]byte(strings.ToUpper(string(buf[:n]))), from)
		}
	}()
	<-ctx.Done()
}

// send sends stdin to an address and prints the answer.
func send() {
	c, err := net.Dial(os.Args[1], os.Args[2])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	c.SetDeadline(time.Now().Add(5 * time.Second))
	b, _ := io.ReadAll(os.Stdin)
	c.Write(b)
	if t, ok := c.(*net.TCPConn); ok {
		t.CloseWrite()
		if _, err := io.Copy(os.Stdout, c); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	buf := make([]byte, 64<<10)
	n, err := c.Read(buf)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Stdout.Write(buf[:n])
}
