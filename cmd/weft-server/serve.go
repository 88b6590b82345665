package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"weft/cmd/internal/cli"
	"weft/cmd/internal/service"
	"weft/coord"
	"weft/coord/metrics"
	"weft/coord/ops"
	"weft/overlay/fips"
)

// stopWithin is the longest time from the signal to the end of the process.
const stopWithin = 5 * time.Second

func serveCmd() *cobra.Command {
	var o serveOptions
	cmd := &cobra.Command{
		Use:   "serve --data DIR [--url https://HOST:8443]...",
		Short: "Run the server in the foreground",
		Long: `Run the server in the foreground.

At the first start it prints to stdout "console URL", a sign-in link that works
once, and "token weft1...", with which the first device joins. Where others reach
the server by another address, "public URL" follows, the same link by that one,
and "fingerprint" of the certificate that their browsers warn of. With --json
that is one object, printed at every start once the server is ready, where the
addresses are and, at the first, the link and the token.
Every flag can be given as a variable too: --trusted-proxy as
WEFT_TRUSTED_PROXY, lists separated by commas.`,
		Args:              args(cobra.NoArgs),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, _ []string) error { return o.serve(cmd) },
	}
	o.flags(cmd.Flags())
	o.asJSON = cli.JSONFlag(cmd)
	return cmd
}

// flags adds the flags of serve. install has them too, and passes them to the service.
func (o *serveOptions) flags(f *pflag.FlagSet) {
	f.StringVar(&o.listen, "listen", coord.DefaultListen, "TCP address for devices, relay and console (TLS)")
	f.StringVar(&o.console, "console", coord.DefaultConsole, "TCP address on loopback for the console and a reverse proxy (plain HTTP), or off")
	f.StringVar(&o.stun, "stun", coord.DefaultSTUN, "UDP address of the relay's STUN, or off")
	f.StringSliceVar(&o.urls, "url", nil, "address by which devices reach this server, such as https://HOST:8443 (repeatable)")
	f.StringVar(&o.ipv4, "ipv4", "", "range of IPv4 addresses for devices (default "+ops.DefaultIPv4+")")
	f.StringVar(&o.suffix, "suffix", "", "domain of the devices' names (default "+ops.DefaultSuffix+")")
	f.StringSliceVar(&o.proxies, "trusted-proxy", nil, "address range of a reverse proxy whose X-Forwarded headers are believed (repeatable)")
	f.StringVar(&o.releases, "releases", "", "directory of the release to hand out, made with scripts/release (default DATA/releases)")
	f.StringVar(&o.acme.Domain, "domain", "", "name in DNS of this server: get a certificate for it that browsers trust (ACME, TLS-ALPN-01; --listen must be reachable at port 443)")
	f.StringVar(&o.passkeys, "passkey-domain", "", "domain that passkeys are for, such as example.org, of which --domain or a reverse proxy's name is a part (default: the name at which the first passkey is made; passkeys for another one do not work any more)")
	f.StringVar(&o.acme.Directory, "acme-directory", "", "address of another CA's ACME directory (default Let's Encrypt)")
	f.StringVar(&o.acme.CAFile, "acme-ca", "", "file with the CA certificates of that directory, for a private CA (PEM)")
	f.StringVar(&o.acme.Email, "acme-email", "", "address that the CA may write to")
	f.StringVar(&o.metrics, "metrics", "", "TCP address on loopback for Prometheus, such as 127.0.0.1:9273 (default: none)")
	logFlags(f, &o.logLevel, &o.logFormat)
}

type serveOptions struct {
	listen, console, stun string
	urls, proxies         []string
	ipv4, suffix          string
	logLevel, logFormat   string
	metrics               string
	releases              string
	passkeys              string
	acme                  coord.ACMEOptions
	asJSON                *bool // of the verb
}

func (o *serveOptions) serve(cmd *cobra.Command) error {
	options, err := o.parse(cmd)
	if err != nil {
		return err
	}
	ctx := cmd.Context()
	s, err := coord.NewServer(ctx, options)
	if err != nil && ctx.Err() != nil {
		return nil // it was told to stop while it started
	}
	if err != nil {
		return err
	}
	defer leaveInTime(cmd)()
	options.Log.Info("serving", "listen", s.Addr(), "console", s.ConsoleURL(), "urls", s.Network().URLs, "network", s.Network().ID, "version", cli.Version())
	logFIPS(options.Log)
	options.Log.Info("the console on --listen uses a certificate that browsers do not know", "sha256", s.Fingerprint())
	if o.metrics != "" {
		m, err := metrics.Listen(ctx, o.metrics, cli.Version(), options.Log, s.Collectors()...)
		if err != nil {
			return errors.Join(err, s.Close())
		}
		defer m.Close()
	}
	if err := o.greet(cmd, s); err != nil && ctx.Err() == nil {
		return errors.Join(err, s.Close())
	}
	defer service.Notify(ctx)()
	select {
	case <-ctx.Done():
		options.Log.Info("stopping")
	case err = <-s.Failed():
	}
	return errors.Join(err, s.Close())
}

// logFIPS logs FIPS mode, if it is on.
func logFIPS(log *slog.Logger) {
	if f := fips.Now(); f.Mode != fips.Off {
		log.Info("FIPS mode", "mode", f.Mode, "module", f.Module, "build", f.Frozen)
	}
}

// greet prints what the owner of a new network needs to begin, and with --json also the server's
// addresses. It does not print the link and the token into the log of a service, where they would
// stay; weft-server install fetches them instead.
func (o *serveOptions) greet(cmd *cobra.Command, s *coord.Server) error {
	var sign signIn
	var w *coord.Welcome
	if os.Getenv("WEFT_SERVICE") == "" {
		var err error
		if w, err = s.Welcome(cmd.Context()); err != nil {
			return err
		}
	}
	token := ""
	if w != nil {
		data, err := dataDir(cmd)
		if err != nil {
			return err
		}
		token, sign = w.Token, newSignIn(w.ConsoleURL, s.Network().URLs, coord.OwnCertificates(data))
	}
	if *o.asJSON {
		v := sign.fields()
		v["token"], v["listen"], v["console"], v["urls"], v["network"], v["version"] = token, s.Addr().String(), s.ConsoleURL(), s.Network().URLs, s.Network().ID, cli.Version()
		if err := cli.PrintObject(cmd.OutOrStdout(), "serve/1", v); err != nil {
			return err
		}
	} else if w != nil {
		if err := sign.greet(cmd.OutOrStdout(), token); err != nil {
			return err
		}
	}
	if w == nil {
		return nil
	}
	fmt.Fprintln(cmd.ErrOrStderr(), "weft-server: the link and the token work once each; more of them: weft-server login-link, weft-server keys create")
	return nil
}

func (o *serveOptions) parse(cmd *cobra.Command) (so coord.ServerOptions, err error) {
	if so.Data, err = dataDir(cmd); err != nil {
		return so, err
	}
	if so.Log, err = logger(cmd, o.logLevel, o.logFormat); err != nil {
		return so, err
	}
	so.Software = cli.Version()
	so.URLs, so.Suffix = trimURLs(o.urls), o.suffix
	address := func(flag, v string) coord.Address { return addressOf(cmd, flag, v) }
	so.Listen, so.Console, so.STUN = address("listen", o.listen), address("console", o.console), address("stun", o.stun)
	if so.Listen.Addr == "" {
		return so, usagef("--listen: a server needs an address to listen on")
	}
	if err := checkAddresses(map[string]string{"listen": so.Listen.Addr, "console": so.Console.Addr, "stun": so.STUN.Addr}); err != nil {
		return so, err
	}
	if o.ipv4 != "" {
		if so.IPv4, err = netip.ParsePrefix(o.ipv4); err != nil {
			return so, usagef("--ipv4 %q: want a range such as %s", o.ipv4, ops.DefaultIPv4)
		}
	}
	for _, p := range o.proxies {
		prefix, err := netip.ParsePrefix(p)
		if a, e := netip.ParseAddr(p); e == nil {
			prefix, err = netip.PrefixFrom(a, a.BitLen()), nil
		}
		if err != nil {
			return so, usagef("--trusted-proxy %q: want an address or a range such as 127.0.0.1/32", p)
		}
		so.TrustedProxies = append(so.TrustedProxies, prefix.Masked())
	}
	if o.metrics != "" {
		if err := metrics.CheckAddr(o.metrics); err != nil {
			return so, usageError{err}
		}
	}
	so.Releases, so.ACME, so.PasskeyDomain = o.releases, o.acme, o.passkeys
	if o.acme.Domain == "" && (o.acme.Directory != "" || o.acme.CAFile != "") {
		return so, usagef("--acme-directory and --acme-ca need --domain NAME")
	}
	return so, nil
}

// leaveInTime ends the process if it is still running stopWithin after it was told to stop,
// because something hangs. The caller calls stopped when it has stopped.
func leaveInTime(cmd *cobra.Command) (stopped func()) {
	done := make(chan struct{})
	stop := context.AfterFunc(cmd.Context(), func() {
		select {
		case <-time.After(stopWithin - 500*time.Millisecond):
			fmt.Fprintln(cmd.ErrOrStderr(), "weft-server: stopping took too long, leaving now")
			os.Exit(1)
		case <-done:
		}
	})
	return func() {
		stop()
		close(done)
	}
}

// logFlags adds the flags that decide what is logged, and in which format.
func logFlags(f *pflag.FlagSet, level, format *string) {
	f.StringVar(level, "log", "info", "what to log to stderr: debug, info, warn, error")
	f.StringVar(format, "log-format", "text", "how: text or json")
}

func logger(cmd *cobra.Command, name, format string) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(name)); err != nil {
		return nil, usagef("--log %q: want debug, info, warn or error", name)
	}
	h := cli.LogHandler(cmd.ErrOrStderr(), format, level)
	if h == nil {
		return nil, usagef("--log-format %q: want text or json", format)
	}
	return slog.New(h), nil
}

// addressOf returns the value of an address flag. The value "off" gives no address.
func addressOf(cmd *cobra.Command, flag, v string) coord.Address {
	if v == "off" {
		v = ""
	}
	return coord.Address{Addr: v, Explicit: cmd.Flags().Changed(flag)}
}

// checkAddresses refuses flags whose value is not an address to listen on.
func checkAddresses(addrs map[string]string) error {
	for _, flag := range slices.Sorted(maps.Keys(addrs)) {
		addr := addrs[flag]
		_, port, err := net.SplitHostPort(addr)
		if _, perr := strconv.ParseUint(port, 10, 16); addr != "" && (err != nil || perr != nil) {
			return usagef("--%s %q: want ADDR:PORT, such as :8443, with a port up to 65535", flag, cli.Plain(addr))
		}
	}
	return nil
}

// trimURLs removes the slash at the end of URLs, which people often copy from a browser.
func trimURLs(urls []string) []string {
	for i := range urls {
		urls[i] = strings.TrimSuffix(strings.TrimSpace(urls[i]), "/")
	}
	return urls
}
