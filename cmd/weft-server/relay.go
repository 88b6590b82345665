package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"weft/cmd/internal/cli"
	"weft/cmd/internal/service"
	"weft/coord"
	"weft/coord/metrics"
	"weft/coord/standalone"
	"weft/dns"
	"weft/overlay/cause"
)

func relayCmd() *cobra.Command {
	var o relayOptions
	var install, uninstall, purge bool
	cmd := &cobra.Command{
		Use:   "relay --data DIR --token T [--server https://HOST:8443] [--url https://HOST:8443]...",
		Short: "Run a standalone relay in the foreground",
		Long: `Run a relay in the foreground, on another machine than the server.

Make its token on the server with: weft-server keys create --relay. The token is
needed at the first start only. Devices choose the nearest relay; while the server
is away, devices connected to this relay stay connected and can reach each other.
--install installs it as a service of this machine, with the given flags and a user
of its own, and starts it. Each flag is also an environment variable: --stun is
WEFT_STUN; lists are separated by commas.`,
		Args:              args(cobra.NoArgs),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case install && uninstall, purge && !uninstall:
				return usagef("use --install, or --uninstall [--purge]")
			case install:
				return installRelay(cmd, &o)
			case uninstall:
				return uninstallRelay(cmd, purge, *o.asJSON)
			}
			return o.run(cmd)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.server, "server", "", "address of the server, such as https://HOST:8443 (default: from the token)")
	f.StringVar(&o.token, "token", "", "token of `weft-server keys create --relay`, for the first start (better in WEFT_TOKEN: ps shows the command line)")
	f.StringVar(&o.tokenFile, "token-file", "", "file with the token; - is standard input")
	f.StringVar(&o.listen, "listen", coord.DefaultListen, "TCP address for devices (TLS)")
	f.StringVar(&o.stun, "stun", coord.DefaultSTUN, "UDP address of STUN, or off")
	f.StringSliceVar(&o.urls, "url", nil, "address at which devices reach this relay, such as https://HOST:8443 (repeatable)")
	f.StringVar(&o.metrics, "metrics", "", "TCP address on loopback for Prometheus, such as 127.0.0.1:9273 (default: none)")
	logFlags(f, &o.logLevel, &o.logFormat)
	f.BoolVar(&install, "install", false, "install it as a service of this machine instead of running it")
	f.BoolVar(&uninstall, "uninstall", false, "remove the service from this machine")
	f.BoolVar(&purge, "purge", false, "with --uninstall: remove its identity, too")
	o.asJSON = cli.JSONFlag(cmd)
	return cmd
}

type relayOptions struct {
	server, token string
	tokenFile     string
	listen, stun  string
	urls          []string
	logLevel      string
	logFormat     string
	metrics       string
	asJSON        *bool // of the verb
}

func (o *relayOptions) run(cmd *cobra.Command) error {
	so, err := o.parse(cmd)
	if err != nil {
		return err
	}
	ctx := cmd.Context()
	defer leaveInTime(cmd)()
	// Remember the server's addresses, so that the relay finds the server without a resolver.
	bootstrap := dns.NewBootstrap(filepath.Join(so.Data, "addresses.json"), nil, nil)
	defer bootstrap.Close()
	so.NetDial = bootstrap.DialContext
	r, err := standalone.Start(ctx, so)
	if err != nil && ctx.Err() != nil {
		return nil // it was told to stop while it started
	}
	if errors.Is(err, standalone.ErrNotJoined) {
		return usageError{err}
	}
	if err != nil {
		return err
	}
	so.Log.Info("relaying", "name", r.Name(), "listen", r.Addr(), "urls", r.URLs(), "network", r.Network(), "version", cli.Version())
	logFIPS(so.Log)
	if o.metrics != "" {
		m, err := metrics.Listen(ctx, o.metrics, cli.Version(), so.Log, metrics.Relay(r.Stats),
			metrics.Gauge("weft_relay_server_synced_timestamp_seconds", "When the server last answered.", "", func() map[string]float64 {
				return map[string]float64{"": float64(max(r.Synced().Unix(), 0))}
			}))
		if err != nil {
			return errors.Join(err, r.Close())
		}
		defer m.Close()
	}
	if *o.asJSON {
		v := map[string]any{"name": r.Name(), "listen": r.Addr().String(), "urls": r.URLs(), "network": r.Network(), "version": cli.Version()}
		if err := cli.PrintObject(cmd.OutOrStdout(), "relay-run/1", v); err != nil {
			return errors.Join(err, r.Close())
		}
	}
	defer service.Notify(ctx)()
	select {
	case <-ctx.Done():
		so.Log.Info("stopping")
	case err = <-r.Failed():
	}
	return errors.Join(err, r.Close())
}

func (o *relayOptions) parse(cmd *cobra.Command) (so standalone.Options, err error) {
	if so.Data, err = dataDir(cmd); err != nil {
		return so, err
	}
	if so.Log, err = logger(cmd, o.logLevel, o.logFormat); err != nil {
		return so, err
	}
	if o.metrics != "" {
		if err := metrics.CheckAddr(o.metrics); err != nil {
			return so, usageError{err}
		}
	}
	if o.listen == "off" {
		return so, usagef("--listen: a relay needs an address to listen on")
	}
	so.Software, so.URLs = cli.Version(), trimURLs(o.urls)
	so.Server = strings.TrimSuffix(strings.TrimSpace(o.server), "/")
	if so.Token, err = o.readToken(cmd.InOrStdin(), so.Data); err != nil {
		return so, err
	}
	so.Listen, so.STUN = addressOf(cmd, "listen", o.listen), addressOf(cmd, "stun", o.stun)
	return so, checkAddresses(map[string]string{"listen": so.Listen.Addr, "stun": so.STUN.Addr})
}

// readToken returns the token for joining, "" if none was given.
func (o *relayOptions) readToken(stdin io.Reader, data string) (string, error) {
	from, b := "--token", []byte(o.token)
	switch {
	case o.token != "" && o.tokenFile != "":
		return "", usagef("give the token once: --token or --token-file (WEFT_TOKEN or WEFT_TOKEN_FILE)")
	case o.tokenFile == "" && o.token == "":
		return "", nil
	case o.tokenFile == "-":
		from = "standard input"
	case o.tokenFile != "":
		from = o.tokenFile
		f, err := os.Open(o.tokenFile)
		if err != nil {
			if _, serr := os.Stat(filepath.Join(data, "relay.json")); serr == nil {
				return "", nil // the relay has joined, and needs no token any more
			}
			return "", fmt.Errorf("read token file %s: %w; make a token on the server with: weft-server keys create --relay", o.tokenFile, cause.Of(err))
		}
		defer f.Close()
		stdin = f
	}
	if o.tokenFile != "" {
		var err error
		if b, err = io.ReadAll(io.LimitReader(stdin, cli.MaxToken)); err != nil {
			return "", fmt.Errorf("read token from %s: %w; name a file with a token: weft-server keys create --relay", from, cause.Of(err))
		}
	}
	token, err := cli.CleanToken(b)
	if err != nil {
		return "", usagef("%s: %w; a token is one word that starts with weft1; make one on the server with: weft-server keys create --relay", from, err)
	}
	return token, nil
}
