package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"weft/cmd/internal/cli"
	"weft/cmd/internal/service"
	"weft/dns"
	"weft/netstack"
	"weft/overlay"
	"weft/overlay/fips"
	"weft/overlay/localapi"
	facts "weft/overlay/report"
	"weft/overlay/status"
)

// The default addresses. A port of theirs that is taken is a warning and not an error,
// so that two daemons fit on one machine.
const (
	defaultProxy = "127.0.0.1:1055"
	defaultDNS   = "127.0.0.1:5335"
)

// runOptions are the flags of weft run, each also an environment variable:
// --token-file is WEFT_TOKEN_FILE.
type runOptions struct {
	token, tokenFile string
	state, hostname  string
	tun, inbound     string
	proxy, dns       string
	osDNS            string
	endpoint         string
	portmap          string
	suite            string
	socket           string
	socketGroup      string
	metrics          string
	logFormat        string
	verbose          bool
	asJSON           *bool // of the verb

	explicit map[string]bool // set by flag or environment
}

func runCmd() *cobra.Command {
	var o runOptions
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Run the daemon, in the foreground",
		Long: `Run the daemon in the foreground, without root. Programs reach the overlay through
the proxy. Peers reach services on this machine's 127.0.0.1, but not those on
[::1] only, to which they would look like local users; to allow that for a port:
--inbound all,8080=[::1]:8080.

With --tun it creates a network interface, which needs root or CAP_NET_ADMIN:
every program reaches the overlay, and peers reach services that listen on the
overlay address or on any address. For a service that listens on localhost only,
add: --inbound 80=localhost:80.

Each flag is also an environment variable: --token-file is WEFT_TOKEN_FILE.
With --json it prints one object once it runs, with the addresses of the socket,
the proxy and the resolver.`,
		Args:              args(cobra.NoArgs),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.fromEnv(cmd.Flags()); err != nil {
				return err
			}
			return daemon(cmd.Context(), &o, cmd.InOrStdin(), cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.token, "token", "", "join with this token, unless already joined (visible to all users in the process list)")
	f.StringVar(&o.tokenFile, "token-file", "", "join with the token in this file, unless already joined; - is standard input")
	f.StringVar(&o.state, "state", "", "state directory (default "+defaultState()+")")
	f.StringVar(&o.hostname, "hostname", "", "requested device name when joining (default: this machine's)")
	f.StringVar(&o.tun, "tun", "", "create a network interface with this name, such as weft0 (default: none, user space)")
	f.StringVar(&o.inbound, "inbound", "all", "what peers allowed by policy reach on this machine: all, none or PORT[=HOST:PORT],...; the list may contain all")
	f.StringVar(&o.suite, "suite", "auto", "how packets are encrypted: aes (refuse peers that cannot use it), wireguard, or auto: aes where both machines have AES instructions, wireguard otherwise")
	f.StringVar(&o.proxy, "proxy", defaultProxy, "SOCKS5 and HTTP proxy into the overlay, loopback only, or off")
	f.StringVar(&o.dns, "dns", defaultDNS, "resolver, loopback only, or off")
	f.StringVar(&o.osDNS, "os-dns", "auto", "with --tun: make the resolver part of this machine's DNS (auto), or do not change it (off)")
	f.StringVar(&o.endpoint, "endpoint", "", "public ADDRESS:PORT,... from which a router forwards UDP to the same port of this machine")
	f.StringVar(&o.portmap, "portmap", "auto", "ask the router to forward a UDP port, by PCP, NAT-PMP or UPnP (auto), or do not (off)")
	f.BoolVarP(&o.verbose, "verbose", "v", false, "log details")
	f.StringVar(&o.socketGroup, "socket-group", "", "group whose members may use the socket, too")
	f.StringVar(&o.metrics, "metrics", "", "address for Prometheus, loopback only, such as 127.0.0.1:9274 (default: none)")
	f.StringVar(&o.logFormat, "log-format", "text", "how to log: text or json")
	o.asJSON = cli.JSONFlag(cmd)
	f.String("socket", "", "the daemon's socket (default "+defaultSocket()+")")
	return cmd
}

// fromEnv sets flags that were not given from WEFT_...; an empty variable is not the
// same as an unset one.
func (o *runOptions) fromEnv(fs *pflag.FlagSet) (err error) {
	o.explicit = map[string]bool{}
	fs.VisitAll(func(f *pflag.Flag) {
		if f.Changed {
			o.explicit[f.Name] = true
			return
		}
		name := "WEFT_" + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
		v, ok := os.LookupEnv(name)
		if !ok || f.Name == "help" || f.Name == "json" || err != nil {
			return
		}
		o.explicit[f.Name] = true
		if serr := f.Value.Set(v); serr != nil {
			// Do not print the value: it may be a secret.
			err = usagef("%s is not usable for --%s", name, f.Name)
		}
	})
	if err != nil {
		return err
	}
	o.socket = fs.Lookup("socket").Value.String()
	if o.token != "" && o.tokenFile != "" {
		return usagef("give the token once: --token or --token-file (WEFT_TOKEN or WEFT_TOKEN_FILE)")
	}
	if o.osDNS != "auto" && o.osDNS != "off" {
		return usagef("--os-dns %q: want auto or off", cli.Plain(o.osDNS))
	}
	for _, a := range []struct{ flag, addr string }{{"proxy", o.proxy}, {"dns", o.dns}, {"metrics", o.metrics}} {
		if off(a.addr) {
			continue
		}
		host, port, err := net.SplitHostPort(a.addr)
		if n, perr := strconv.ParseUint(port, 10, 16); err != nil || perr != nil || n == 0 && port != "0" {
			return usagef("--%s %q: want ADDRESS:PORT on loopback, such as 127.0.0.1:1055, or off", a.flag, cli.Plain(a.addr))
		}
		if ip, err := netip.ParseAddr(host); host != "localhost" && (err != nil || !ip.Unmap().IsLoopback()) {
			return usagef("--%s %q: want a loopback address, such as 127.0.0.1:%s, since there is no password", a.flag, cli.Plain(a.addr), port)
		}
	}
	if o.state == "" {
		o.state = defaultState()
	}
	if o.socket == "" {
		o.socket = defaultSocket()
	}
	if o.state == "" || o.socket == "" {
		return usagef("there is no home directory: choose paths with --state DIR and --socket PATH")
	}
	return nil
}

func defaultState() string {
	if os.Getuid() == 0 {
		return "/var/lib/weft"
	}
	return userState()
}

func defaultSocket() string {
	if os.Getuid() == 0 {
		return systemSocket
	}
	return userSocket()
}

// off reports whether a listener is disabled.
func off(addr string) bool { return addr == "" || addr == "off" || addr == "none" }

// daemon runs the node until ctx ends. It checks the whole command line before it joins
// a network or listens.
func daemon(ctx context.Context, o *runOptions, stdin io.Reader, stdout, stderr io.Writer) (err error) {
	level := slog.LevelInfo
	if o.verbose {
		level = slog.LevelDebug
	}
	handler := cli.LogHandler(stderr, o.logFormat, level)
	if handler == nil {
		return usagef("--log-format %q: want text or json", o.logFormat)
	}
	log := slog.New(handler)
	ignoreOwnProxy(o.proxy, log)
	limitMemory()

	token, err := o.readToken(stdin)
	if err != nil {
		return err
	}
	inbound, err := parseInbound(o.inbound)
	if err != nil {
		return err
	}
	udp, err := o.udp()
	if err != nil {
		return err
	}
	suite, ok := map[string]string{"auto": overlay.SuiteAuto, "wireguard": overlay.SuiteWireGuard, "aes": overlay.SuiteAES}[o.suite]
	if !ok {
		return usagef("--suite %q: want auto, aes or wireguard", o.suite)
	}
	// Start the state directory first: two daemons on one directory would be one
	// identity twice, and its lock reports that best (in Start). Its parent directories
	// also contain the default socket.
	sock, err := localapi.Listen(o.socket, o.socketGroup)
	if errors.Is(err, localapi.ErrInUse) {
		return &status.Error{Kind: status.KindFailed, Message: "a daemon is already running at " + o.socket,
			Hint: "see: weft status; for a second one choose --state and --socket"}
	}
	if err != nil {
		return err
	}
	defer sock.Close()
	defer noteSocket(o.socket)()

	d := services{failed: make(chan error, 4), group: o.socketGroup != ""}
	defer d.close()
	if err := d.listen(o, log); err != nil {
		return err
	}
	network, err := o.network(&d, inbound, log)
	if err != nil {
		return err
	}
	d.osDNS, network = newOSDNS(o, network, log)
	bootstrap := dns.NewBootstrap(filepath.Join(o.state, "addresses.json"), nil, nil)
	defer bootstrap.Close()
	node, err := overlay.New(overlay.Config{
		Net:          network,
		StateDir:     o.state,
		Token:        token,
		Hostname:     o.hostname,
		Version:      cli.Version(),
		BuildTime:    facts.BuildTime(), // the lower bound of weft time
		Log:          log,
		UDP:          udp,
		Suite:        suite,
		NamesChanged: d.osDNS.kick,
		NetworkChanged: func() {
			if resolver := d.resolver.Load(); resolver != nil {
				resolver.LinkChanged()
			}
		},
		Lull: releaseMemory,
		// The server is reached even if no resolver answers.
		NetDial: bootstrap.DialContext,
	})
	if err != nil {
		network.Close()
		return err
	}
	d.node.Store(node)
	defer node.Close()
	defer d.osDNS.close() // before the interface is removed
	for _, h := range d.warnings {
		node.Warn(h.Code, h.Message)
	}
	if err := node.Start(ctx); err != nil {
		return err
	}
	d.serve(node, sock, log)
	log.Info("running", "state", o.state, "socket", o.socket, "tun", o.tun, "proxy", d.proxyAddr(), "dns", d.dnsAddr())
	if f := fips.Now(); f.Mode != fips.Off {
		log.Info("FIPS mode", "mode", f.Mode, "module", f.Module, "build", f.Frozen)
	}
	if *o.asJSON {
		err := cli.PrintObject(stdout, "run/1", map[string]string{"state": o.state, "socket": o.socket, "tun": o.tun, "proxy": d.proxyAddr(), "dns": d.dnsAddr()})
		if err != nil {
			return err
		}
	}
	// Free the memory that only the start needed.
	settled := time.AfterFunc(releaseAfter, releaseMemory)
	defer settled.Stop()
	defer service.Notify(ctx)()

	select {
	case <-ctx.Done():
		return nil
	case err := <-d.failed:
		return err
	}
}

// network makes the host's side of the tunnel: in user space, or with --tun in the
// kernel.
func (o *runOptions) network(d *services, inbound inboundRules, log *slog.Logger) (overlay.Net, error) {
	if o.tun != "" {
		return d.makeTUN(o.tun, inbound, log)
	}
	stack, err := netstack.New(netstack.Config{Log: log, Health: d.health})
	if err != nil {
		return nil, err
	}
	policy := inbound.policy(d.ownPorts())
	policy.Watch = inbound.watch(d, log)
	stack.SetInbound(policy)
	return stack, nil
}

// readToken returns the token to join with, "" for none.
func (o *runOptions) readToken(stdin io.Reader) (string, error) {
	switch {
	case o.tokenFile != "":
		token, err := readTokenFile(o.tokenFile, stdin)
		// A device that has joined no longer needs the file, and users are advised to
		// delete it.
		if _, serr := os.Stat(filepath.Join(o.state, "node.json")); err != nil && serr == nil {
			return "", nil
		}
		return token, err
	case o.token != "":
		return checkToken([]byte(o.token), "--token")
	}
	return "", nil
}
