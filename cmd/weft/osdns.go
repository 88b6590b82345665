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

// osDNS makes the resolver part of the operating system while the node runs
// with an interface of its own, and keeps it in step with the configuration.
// A nil *osDNS is that of user space: it does nothing.
type osDNS struct {
	// Constant after serve.
	iface string
	off   bool // --os-dns=off: only the service address answers
	log   *slog.Logger
	node  *overlay.Node

	names   dns.Config // Zone and Settings: the same pointers while nothing changes
	service *serviceAddr
	manager *osdns.Manager // nil: serve was not called

	changed chan struct{} // the configuration may be another
	stop    chan struct{}
	done    sync.WaitGroup
}

// configuredNet is a kernel interface that tells when the node has brought it
// up.
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

// newOSDNS puts what an earlier daemon has left back first: until then nothing
// resolves on this machine, the server's name included. The Net that it
// returns is to be used in place of n.
func newOSDNS(o *runOptions, n overlay.Net, log *slog.Logger) (*osDNS, overlay.Net) {
	if o.tun == "" {
		return nil, n
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	did, err := osdns.Restore(ctx, "", o.tun)
	for _, d := range did {
		log.Info("an earlier daemon has ended without this", "done", d)
	}
	if err != nil {
		log.Warn("DNS settings of an earlier daemon cannot be put back", "err", err)
	}
	d := &osDNS{
		iface: o.tun, off: o.osDNS == "off", log: log,
		changed: make(chan struct{}, 1), stop: make(chan struct{}),
	}
	return d, configuredNet{n, d.kick}
}

// serve starts it. Nothing of the system changes before the node has a
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

// kick has the configuration looked at. It is called by the node, which may
// hold locks.
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

// sync tells the manager what the configuration says now.
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
		d.log.Warn("the configuration's names cannot be set", "err", err)
		d.node.Warn(status.CodeOSDNSConfig, "the names in the network's configuration cannot be set: "+err.Error())
		return
	}
	d.node.Clear(status.CodeOSDNSConfig)
}

// answer has the service address answer without anything of the system's DNS
// being set.
func (d *osDNS) answer(c osdns.Config) {
	if c.IsZero() {
		return
	}
	if err := d.service.ready(); err != nil {
		d.node.Warn(status.CodeOSDNS, err.Error())
	}
}

// base are the resolvers of the machine without us, if they are known.
func (d *osDNS) base() ([]netip.AddrPort, bool) {
	if d == nil {
		return nil, false
	}
	if d.manager == nil {
		return nil, false
	}
	return d.manager.Base()
}

// close puts the system back as it was.
func (d *osDNS) close() {
	if d == nil || d.manager == nil {
		return
	}
	close(d.stop)
	d.done.Wait()
	if err := d.manager.Close(); err != nil {
		d.log.Warn("the system's DNS is not as it was", "err", err)
	}
	d.service.close()
}

// wantedDNS is what a configuration asks of the system.
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

// syncedNode is the node as the local API sees it: what the user does to it
// shows in the system's DNS.
type syncedNode struct {
	*overlay.Node
	dns *osDNS
}

// Without Gather, which the local API does not insist on, netcheck would look over
// sockets of its own.
var _ interface {
	localapi.Node
	netcheck.Gatherer
} = syncedNode{}

// Up is Node's.
func (n syncedNode) Up(ctx context.Context, token string) error {
	defer n.dns.kick()
	return n.Node.Up(ctx, token)
}

// Down is Node's.
func (n syncedNode) Down(ctx context.Context) error {
	defer n.dns.kick()
	return n.Node.Down(ctx)
}

// Logout is Node's.
func (n syncedNode) Logout(ctx context.Context) error {
	defer n.dns.kick()
	return n.Node.Logout(ctx)
}

// status is what was found, set and why; nil in user space.
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

// printOSDNS prints the section of weft dns status about the system.
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
		line("others", cmp.Or(strings.Join(s.Base, ", "), "no resolver of this machine is known"))
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
		Short: "Put this machine's DNS settings back after a daemon that was killed",
		Long: `Put this machine's DNS settings back as they were before the daemon. No daemon
has to run; one that does keeps its settings. For the stop hook of a service:
ExecStopPost=weft dns restore`,
		Args:              args(cobra.NoArgs),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			// On a machine with more work than it can do, resolvconf takes long,
			// and without it no name resolves here.
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
				return fmt.Errorf("put this machine's DNS settings back: %w", err)
			}
			return nil
		},
	}
	asJSON = cli.JSONFlag(cmd)
	return cmd
}
