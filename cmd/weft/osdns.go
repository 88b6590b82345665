package main

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"weft/cmd/internal/cli"
	"weft/dns"
	"weft/dns/osdns"
	"weft/overlay"
	"weft/overlay/localapi"
	"weft/overlay/netcheck"
	"weft/overlay/status"
)

// osDNS makes the resolver part of the operating system while the node runs with a
// network interface, and updates it after changes of the configuration. A nil *osDNS,
// in user space, does nothing.
type osDNS struct {
	// Constant after serve.
	iface string
	off   bool // --os-dns=off: only the service address answers
	log   *slog.Logger
	node  *overlay.Node

	names   dns.Config // Zone and Settings return the same pointers until something changes
	service *serviceAddr
	manager *osdns.Manager // nil: serve was not called

	changed chan struct{} // the configuration may have changed
	stop    chan struct{}
	done    sync.WaitGroup
}

// configuredNet is a kernel interface that reports when the node has set it up.
type configuredNet struct {
	overlay.Net
	changed func()
}

// SetAddrs implements overlay.Net.
func (n configuredNet) SetAddrs(v4, v6 netip.Addr) error {
	err := n.Net.SetAddrs(v4, v6)
	n.changed()
	return err
}

// newOSDNS first restores DNS settings of a killed daemon: until then no name resolves
// on this machine, not even the server's. Use the returned Net instead of n.
func newOSDNS(o *runOptions, n overlay.Net, log *slog.Logger) (*osDNS, overlay.Net) {
	if o.tun == "" {
		return nil, n
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	did, err := osdns.Restore(ctx, "", o.tun)
	for _, d := range did {
		log.Info("restored DNS settings of a killed daemon", "done", d)
	}
	if err != nil {
		log.Warn("cannot restore DNS settings of a killed daemon", "err", err)
	}
	d := &osDNS{
		iface: o.tun, off: o.osDNS == "off", log: log,
		changed: make(chan struct{}, 1), stop: make(chan struct{}),
	}
	return d, configuredNet{n, d.kick}
}

// serve starts it. It changes nothing in the system before the node has a
// configuration.
func (d *osDNS) serve(node *overlay.Node, resolver *dns.Server, names dns.Config) {
	if d == nil {
		return
	}
	m, err := osdns.New(osdns.Options{
		Interface: d.iface,
		Log:       d.log,
		Warn: func(code, message string) {
			if message == "" {
				node.Clear(status.Code(code))
			} else {
				node.Warn(status.Code(code), message)
			}
		},
		Prepare:     func() error { return d.service.ready() },
		BaseChanged: resolver.LinkChanged,
	})
	if err != nil {
		node.Warn(status.CodeOSDNS, err.Error())
		return
	}
	d.node, d.names = node, names
	d.service, d.manager = newServiceAddr(d.iface, resolver.Serve, d.log), m
	d.done.Go(d.syncLoop)
	d.kick()
}

// kick triggers a check of the configuration. The node calls it and may hold locks.
func (d *osDNS) kick() {
	if d == nil {
		return
	}
	select {
	case d.changed <- struct{}{}:
	default:
	}
}

func (d *osDNS) syncLoop() {
	var zone *dns.Zone
	var settings *dns.Settings
	for {
		select {
		case <-d.stop:
			return
		case <-d.changed:
		}
		d.sync()
		z, s := d.names.Zone(), d.names.Settings()
		if z != zone || s != settings {
			d.manager.Flush()
		}
		zone, settings = z, s
	}
}

// sync applies the current configuration to the manager.
func (d *osDNS) sync() {
	c := osdns.Config{}
	switch d.node.State() {
	case status.StateRunning, status.StateConnecting:
		c = wantedDNS(d.node.Names(), d.names.Settings())
	}
	if d.off {
		c.Search, c.Match, c.Default = nil, nil, false
		d.answer(c)
		return
	}
	if err := d.manager.Set(c); err != nil {
		d.log.Warn("cannot set the names of the configuration", "err", err)
		d.node.Warn(status.CodeOSDNSConfig, "cannot set the names of the network's configuration: "+err.Error())
		return
	}
	d.node.Clear(status.CodeOSDNSConfig)
}

// answer makes the service address answer without setting the system's DNS.
func (d *osDNS) answer(c osdns.Config) {
	if c.IsZero() {
		return
	}
	if err := d.service.ready(); err != nil {
		d.node.Warn(status.CodeOSDNS, err.Error())
	}
}

// base are the machine's own resolvers, if they are known.
func (d *osDNS) base() ([]netip.AddrPort, bool) {
	if d == nil {
		return nil, false
	}
	if d.manager == nil {
		return nil, false
	}
	return d.manager.Base()
}

// close restores the system's DNS.
func (d *osDNS) close() {
	if d == nil || d.manager == nil {
		return
	}
	close(d.stop)
	d.done.Wait()
	if err := d.manager.Close(); err != nil {
		d.log.Warn("cannot restore the system's DNS", "err", err)
	}
	d.service.close()
}

// wantedDNS is the desired state of the system's DNS for a configuration.
func wantedDNS(n *status.Names, s *dns.Settings) osdns.Config {
	if n == nil || !n.Ready || osdns.CheckDomain(n.Suffix) != nil {
		return osdns.Config{}
	}
	if s == nil {
		s = &dns.Settings{}
	}
	c := osdns.Config{Nameserver: dns.ServiceAddr, SearchLast: s.LANNamesWin, Default: len(s.Nameservers) > 0}
	usable := func(d string) bool { return osdns.CheckDomain(d) == nil }
	c.Search = append(c.Search, n.Suffix)
	for _, d := range s.Search {
		if usable(d) {
			c.Search = append(c.Search, d)
		}
	}
	c.Match = append(c.Match, n.Suffix)
	for _, r := range s.Routes {
		if usable(r.Suffix) {
			c.Match = append(c.Match, r.Suffix)
		}
	}
	for _, r := range s.Records {
		name := strings.ToLower(strings.TrimSuffix(r.Name, "."))
		if strings.Contains(name, ".") && usable(name) && !strings.HasSuffix(name, "."+n.Suffix) {
			c.Match = append(c.Match, name)
		}
	}
	slices.Sort(c.Match[1:])
	const most = 400
	c.Match = slices.Compact(c.Match)
	c.Match = c.Match[:min(len(c.Match), most)]
	c.Match = append(c.Match, osdns.ReverseZones(n.IPv4)...)
	c.Match = append(c.Match, osdns.ReverseZones(n.IPv6)...)
	return c
}

// syncedNode is the node for the local API: it updates the system's DNS after the
// user's commands.
type syncedNode struct {
	*overlay.Node
	dns *osDNS
}

// Without Gather, which the local API does not require, netcheck would use sockets of
// its own.
var _ interface {
	localapi.Node
	netcheck.Gatherer
} = syncedNode{}

// Up implements localapi.Node.
func (n syncedNode) Up(ctx context.Context, token string) error {
	defer n.dns.kick()
	return n.Node.Up(ctx, token)
}

// Down implements localapi.Node.
func (n syncedNode) Down(ctx context.Context) error {
	defer n.dns.kick()
	return n.Node.Down(ctx)
}

// Logout implements localapi.Node.
func (n syncedNode) Logout(ctx context.Context) error {
	defer n.dns.kick()
	return n.Node.Logout(ctx)
}

// status is what was found and set, and why; nil in user space.
func (d *osDNS) status() func() localapi.OSDNS {
	if d == nil {
		return nil
	}
	return func() localapi.OSDNS {
		if d.off || d.manager == nil {
			return localapi.OSDNS{Mode: string(osdns.ModeOff), Interface: d.iface, Reason: "--os-dns=off: only " + dns.ServiceAddr.String() + " answers"}
		}
		s := d.manager.Status()
		out := localapi.OSDNS{
			Mode: string(s.Mode), Reason: s.Reason, Interface: d.iface,
			Search: s.Config.Search, Match: s.Config.Match, Default: s.Config.Default,
			Applied: s.Applied, Tramples: s.Tramples,
		}
		if !s.Config.IsZero() {
			out.Nameserver = s.Config.Nameserver.String()
		}
		for _, b := range s.Base {
			out.Base = append(out.Base, b.String())
		}
		if s.Err != nil {
			out.Error = s.Err.Error()
		}
		return out
	}
}

// printOSDNS prints the system's section of weft dns status.
func printOSDNS(cmd *cobra.Command, s localapi.OSDNS) {
	out := cmd.OutOrStdout()
	line := func(key string, values ...string) {
		for _, v := range values {
			fmt.Fprintf(out, "%-10s %s\n", key, cli.Plain(v))
			key = ""
		}
	}
	line("system", s.Mode+": "+s.Reason)
	if len(s.Applied) == 0 && s.Mode != string(osdns.ModeOff) {
		line("set", "nothing")
	}
	line("set", s.Applied...)
	if s.Nameserver != "" {
		line("others", cmp.Or(strings.Join(s.Base, ", "), "no other resolver of this machine is known"))
	}
	if s.Tramples > 0 {
		line("overwritten", fmt.Sprintf("%d times by other programs", s.Tramples))
	}
	if s.Error != "" {
		line("problem", s.Error)
	}
}

func dnsRestoreCmd() *cobra.Command {
	var asJSON *bool
	cmd := &cobra.Command{
		Use:   "restore",
		Short: "Restore this machine's DNS settings after a daemon was killed",
		Long: `Restore this machine's DNS settings from before the daemon. No daemon has to run;
the settings of a running one stay. For the stop hook of a service:
ExecStopPost=weft dns restore`,
		Args:              args(cobra.NoArgs),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			// On an overloaded machine resolvconf takes long, and without it no name
			// resolves here.
			ctx, cancel := context.WithTimeout(cmd.Context(), time.Minute)
			defer cancel()
			did, err := osdns.Restore(ctx, "", "")
			if *asJSON && err == nil {
				return cli.PrintObject(cmd.OutOrStdout(), "dns-restore/1", map[string]any{"done": append([]string{}, did...)})
			}
			for _, d := range did {
				fmt.Fprintln(cmd.ErrOrStderr(), d)
			}
			if err != nil {
				return fmt.Errorf("restore this machine's DNS settings: %w", err)
			}
			return nil
		},
	}
	asJSON = cli.JSONFlag(cmd)
	return cmd
}
