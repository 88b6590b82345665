package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"weft/cmd/internal/cli"
	"weft/coord"
	"weft/coord/doctor"
	"weft/coord/ops"
	"weft/coord/store"
	"weft/coord/webapi/client"
	"weft/dns"
	"weft/overlay/cause"
	"weft/overlay/release"
	facts "weft/overlay/report"
)

const (
	lookTime = 5 * time.Second // for each check
	maxAddrs = 8               // addresses of one host that are checked
)

func doctorCmd() *cobra.Command {
	var asJSON *bool
	var o serveOptions
	var fips bool
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Find what is wrong with this server, why, and which command fixes it",
		Long: `Find what is wrong with this server, why, and which command fixes it. Exit
code 1 when something does not work. Nothing is changed. --listen, --console,
--stun and --releases are those of serve.

With --fips it says for an audit which cryptographic module the server uses, where,
and what is outside the module.`,
		Args:              args(cobra.NoArgs),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			data, err := dataDir(cmd)
			if err != nil {
				return err
			}
			if fips {
				return doctorFIPS(cmd, data, *asJSON)
			}
			found := doctor.Diagnose(collect(cmd.Context(), data, &o))
			if *asJSON {
				err = cli.PrintObject(cmd.OutOrStdout(), "doctor/1", map[string]any{"findings": found})
			} else {
				err = cli.PrintFindings(cmd.OutOrStdout(), found)
			}
			if err == nil && found.Broken() {
				err = errors.New("something does not work")
			}
			return err
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.listen, "listen", coord.DefaultListen, "as for serve")
	f.StringVar(&o.console, "console", coord.DefaultConsole, "as for serve")
	f.StringVar(&o.stun, "stun", coord.DefaultSTUN, "as for serve")
	f.StringVar(&o.releases, "releases", "", "as for serve")
	f.BoolVar(&fips, "fips", false, "report on FIPS 140-3, for an audit")
	asJSON = cli.JSONFlag(cmd)
	return cmd
}

// collect gathers the facts for package doctor. A fact that cannot be determined stays zero.
func collect(ctx context.Context, data string, o *serveOptions) doctor.Facts {
	f := doctor.Facts{Now: time.Now(), Built: facts.BuildTime(), Version: cli.Version(), Data: data, Free: facts.DiskFree(data), Backup: ops.LastBackup(data), Releases: o.releases}
	if f.Releases == "" {
		f.Releases = filepath.Join(data, "releases")
	}
	if d, err := release.Open(f.Releases); err != nil {
		f.ReleaseErr = err
	} else {
		f.Release = d.Version
		d.Close()
	}
	f.Running = answers(filepath.Join(data, "admin.sock"))
	urls := askServer(ctx, data, &f)
	f.Database = store.Check(ctx, filepath.Join(data, "weft.db"))
	for _, p := range []doctor.Port{{Flag: "--listen", Addr: o.listen}, {Flag: "--console", Addr: o.console}, {Flag: "--stun", Addr: o.stun}} {
		if p.Addr == "off" || p.Addr == "" {
			continue
		}
		p.Err = checkPort(ctx, p, f.Running)
		f.Ports = append(f.Ports, p)
	}
	if !f.Running {
		return f
	}
	own := coord.OwnCertificates(data)
	sites := make([][]doctor.Site, len(urls))
	var wg sync.WaitGroup
	for i, u := range urls {
		wg.Go(func() { sites[i] = checkSites(ctx, u, own) })
	}
	wg.Wait()
	f.Sites = slices.Concat(sites...)
	return f
}

// answers reports whether a process listens on a unix socket.
func answers(path string) bool {
	c, err := net.Dial("unix", path)
	if err == nil {
		c.Close()
	}
	return err == nil || errors.Is(err, fs.ErrPermission)
}

// askServer fills in the facts from the server, or from its data directory, and returns the
// addresses of the server.
func askServer(ctx context.Context, data string, f *doctor.Facts) []string {
	ctx, cancel := context.WithTimeout(ctx, 2*lookTime)
	defer cancel()
	a, err := client.Open(ctx, ops.Options{Data: data, Software: cli.Version()})
	if err != nil {
		f.AdminErr = err
		return nil
	}
	defer a.Close()
	devices, err := a.Devices(ctx, ops.DeviceQuery{})
	if err != nil {
		f.AdminErr = err
		return nil
	}
	f.Devices = len(devices)
	// A running server of an older version may not answer the following requests.
	if r, err := a.Revocations(ctx); err == nil {
		f.List = doctor.List(r)
	}
	if s, err := a.FIPS(ctx); err == nil {
		f.FIPS = s.Status
	}
	for _, d := range devices {
		if dns.Reserved(d.Name) {
			f.Misnamed = append(f.Misnamed, d.Name)
		}
	}
	if hooks, err := a.Webhooks(ctx); err == nil {
		f.Webhooks = doctor.OfWebhooks(hooks)
	}
	list, err := a.Relays(ctx)
	if err != nil {
		f.AdminErr = err
		return nil
	}
	relays, urls := doctor.OfRelays(list)
	if f.Running {
		f.Relays = relays
	}
	return urls
}

// checkPort connects to the port if a server runs, and tries to listen on it if none does.
func checkPort(ctx context.Context, p doctor.Port, running bool) error {
	network := "tcp"
	if p.Flag == "--stun" {
		network = "udp"
	}
	if running {
		if network == "udp" {
			return nil // only other machines can tell whether UDP arrives: weft netcheck does
		}
		host, port, err := net.SplitHostPort(p.Addr)
		if err != nil {
			return err
		}
		switch host { // if the server listens on all addresses, connect to loopback
		case "", "0.0.0.0":
			host = "127.0.0.1"
		case "::":
			host = "::1"
		}
		ctx, cancel := context.WithTimeout(ctx, lookTime)
		defer cancel()
		c, err := (&net.Dialer{}).DialContext(ctx, network, net.JoinHostPort(host, port))
		if err == nil {
			c.Close()
		}
		return cause.Of(err)
	}
	var l io.Closer
	var err error
	if network == "udp" {
		l, err = (&net.ListenConfig{}).ListenPacket(ctx, network, p.Addr)
	} else {
		l, err = (&net.ListenConfig{}).Listen(ctx, network, p.Addr)
	}
	if err != nil {
		return cause.Of(err)
	}
	return l.Close()
}

// checkSites requests one of the server's URLs as a visitor would, at each address of its host,
// because a visitor may be given any of them.
func checkSites(ctx context.Context, raw string, own [][]byte) []doctor.Site {
	u, err := url.Parse(raw)
	if err != nil {
		return []doctor.Site{{URL: raw, Err: err}}
	}
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	addrs, err := net.DefaultResolver.LookupHost(ctx, u.Hostname())
	if err != nil {
		return []doctor.Site{{URL: raw, Lookup: err}}
	}
	return checkAddrs(ctx, u, addrs[:min(len(addrs), maxAddrs)], own)
}

// checkAddrs requests a site at each of the addresses of its host.
func checkAddrs(ctx context.Context, u *url.URL, addrs []string, own [][]byte) []doctor.Site {
	sites := make([]doctor.Site, len(addrs))
	var wg sync.WaitGroup
	for i, addr := range addrs {
		wg.Go(func() {
			sites[i] = checkSite(ctx, u, addr, own)
			if len(addrs) > 1 {
				sites[i].Addr = addr
			}
		})
	}
	wg.Wait()
	return sites
}

// checkSite requests a site at one address of its host.
func checkSite(ctx context.Context, u *url.URL, addr string, own [][]byte) doctor.Site {
	s := doctor.Site{URL: u.String()}
	t := &http.Transport{
		DialContext: func(ctx context.Context, network, hostPort string) (net.Conn, error) {
			_, port, err := net.SplitHostPort(hostPort)
			if err != nil {
				return nil, err
			}
			return new(net.Dialer).DialContext(ctx, network, net.JoinHostPort(addr, port))
		},
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true}, // the certificate is checked below
		DisableKeepAlives: true,
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL+"/healthz", nil)
	if err != nil {
		s.Err = err
		return s
	}
	res, err := t.RoundTrip(req)
	if err != nil {
		s.Err = cause.Of(err)
		return s
	}
	defer res.Body.Close()
	body, _ := io.ReadAll(io.LimitReader(res.Body, 64))
	if res.StatusCode != http.StatusOK || strings.TrimSpace(string(body)) != "ok" {
		s.Err = fmt.Errorf("it answers %s, which a weft server does not", res.Status)
		return s
	}
	chain := res.TLS.PeerCertificates
	s.Own = slices.ContainsFunc(own, func(der []byte) bool { return bytes.Equal(der, chain[0].Raw) })
	s.Expires = chain[0].NotAfter
	s.Trusted = !s.Own && trusted(chain, u.Hostname(), nil)
	return s
}

// trusted reports whether a browser would accept a certificate for host, apart from its expiry,
// which is another finding. If roots is nil it uses the system's.
func trusted(chain []*x509.Certificate, host string, roots *x509.CertPool) bool {
	o := x509.VerifyOptions{DNSName: host, Roots: roots, Intermediates: x509.NewCertPool()}
	for _, c := range chain[1:] {
		o.Intermediates.AddCert(c)
	}
	if end := chain[0].NotAfter; time.Now().After(end) {
		o.CurrentTime = end
	}
	_, err := chain[0].Verify(o)
	return err == nil
}
