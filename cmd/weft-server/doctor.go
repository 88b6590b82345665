package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"weft/cmd/internal/cli"
	"weft/coord"
	facts "weft/coord/doctor"
	"weft/coord/store"
	"weft/overlay/doctor"
	"weft/overlay/release"
)

// lookTime bounds each thing that the doctor looks at.
const lookTime = 5 * time.Second

// backupStamp is the file in the data directory whose time is that of the last
// backup.
const backupStamp = "last-backup"

func doctorCmd() *cobra.Command {
	var asJSON *bool
	var o serveOptions
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Find what is wrong with this server, why, and the command that cures it",
		Long: `Find what is wrong with this server, why, and the command that cures it. Exit
code 1 when something does not work. Nothing is changed. --listen, --console,
--stun and --releases are those of serve.`,
		Args:              args(cobra.NoArgs),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			data, err := dataDir(cmd)
			if err != nil {
				return err
			}
			found := facts.Diagnose(collect(cmd.Context(), data, &o))
			if *asJSON {
				err = cli.PrintJSON(cmd.OutOrStdout(), map[string]any{"schema": "doctor/1", "findings": found})
			} else {
				err = printFindings(cmd.OutOrStdout(), found)
			}
			if err == nil && found[0].Level == doctor.Error {
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
	asJSON = cli.JSONFlag(cmd)
	return cmd
}

func printFindings(w io.Writer, found []doctor.Finding) error {
	for _, f := range found {
		mark := map[doctor.Level]string{doctor.Error: "FAIL", doctor.Warning: "warn", doctor.OK: "ok  "}[f.Level]
		if _, err := fmt.Fprintf(w, "%s  %s: %s\n", mark, f.Code, cli.Plain(f.Message)); err != nil {
			return err
		}
		if f.Cure != "" {
			fmt.Fprintf(w, "      cure: %s\n", cli.Plain(f.Cure))
		}
	}
	return nil
}

// collect gathers the facts. What cannot be found out stays unknown.
func collect(ctx context.Context, data string, o *serveOptions) facts.Facts {
	f := facts.Facts{Now: time.Now(), Built: buildTime(), Version: cli.Version(), Data: data, Free: diskFree(data), Releases: o.releases}
	if f.Releases == "" {
		f.Releases = filepath.Join(data, "releases")
	}
	if d, err := release.Open(f.Releases); err != nil {
		f.ReleaseErr = err
	} else {
		f.Release = d.Version
		d.Close()
	}
	if fi, err := os.Stat(filepath.Join(data, backupStamp)); err == nil {
		f.Backup = fi.ModTime()
	}
	f.Running = answers(filepath.Join(data, "admin.sock"))
	urls := askServer(ctx, data, &f)
	f.Database = store.Check(ctx, filepath.Join(data, "weft.db"))
	for _, p := range []facts.Port{{Flag: "--listen", Addr: o.listen}, {Flag: "--console", Addr: o.console}, {Flag: "--stun", Addr: o.stun}} {
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
	f.Sites = make([]facts.Site, len(urls))
	var wg sync.WaitGroup
	for i, u := range urls {
		wg.Go(func() { f.Sites[i] = checkSite(ctx, u, own) })
	}
	wg.Wait()
	return f
}

// answers reports whether somebody listens on a unix socket.
func answers(path string) bool {
	c, err := net.Dial("unix", path)
	if err == nil {
		c.Close()
	}
	return err == nil || errors.Is(err, fs.ErrPermission)
}

// askServer fills in what the server, or its data directory, knows, and returns
// its addresses.
func askServer(ctx context.Context, data string, f *facts.Facts) (urls []string) {
	ctx, cancel := context.WithTimeout(ctx, 2*lookTime)
	defer cancel()
	a, err := coord.OpenAdmin(ctx, coord.Options{Data: data, Software: cli.Version()})
	if err != nil {
		f.AdminErr = err
		return nil
	}
	defer a.Close()
	devices, err := a.ListDevices(ctx)
	if err != nil {
		f.AdminErr = err
		return nil
	}
	f.Devices = len(devices)
	list, err := a.ListRelays(ctx)
	if err != nil {
		f.AdminErr = err
		return nil
	}
	for _, r := range list {
		if r.Builtin {
			urls = r.URLs
			continue
		}
		relay := facts.Relay{Name: r.Name, Online: r.Online}
		if r.Heard != nil {
			relay.Heard = *r.Heard
		}
		if f.Running {
			f.Relays = append(f.Relays, relay)
		}
	}
	return urls
}

// checkPort asks a running server's port, and tries to have one of a server
// that does not run.
func checkPort(ctx context.Context, p facts.Port, running bool) error {
	network := "tcp"
	if p.Flag == "--stun" {
		network = "udp"
	}
	if running {
		if network == "udp" {
			return nil // weft netcheck asks it from where it matters
		}
		host, port, err := net.SplitHostPort(p.Addr)
		if err != nil {
			return err
		}
		switch host { // everywhere is here, too
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
		return err
	}
	var l io.Closer
	var err error
	if network == "udp" {
		l, err = (&net.ListenConfig{}).ListenPacket(ctx, network, p.Addr)
	} else {
		l, err = (&net.ListenConfig{}).Listen(ctx, network, p.Addr)
	}
	if err != nil {
		var errno syscall.Errno
		if errors.As(err, &errno) {
			return errno
		}
		return err
	}
	return l.Close()
}

// checkSite looks at one of the server's addresses as a stranger would.
func checkSite(ctx context.Context, raw string, own [][]byte) facts.Site {
	s := facts.Site{URL: raw}
	u, err := url.Parse(raw)
	if err != nil {
		s.Err = err
		return s
	}
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	if _, s.Lookup = net.DefaultResolver.LookupHost(ctx, u.Hostname()); s.Lookup != nil {
		return s
	}
	// What it is shown is judged below.
	t := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, raw+"/healthz", nil)
	if err != nil {
		s.Err = err
		return s
	}
	res, err := (&http.Client{Transport: t}).Do(req)
	if err != nil {
		var ue *url.Error
		if errors.As(err, &ue) {
			err = ue.Err
		}
		s.Err = err
		return s
	}
	defer res.Body.Close()
	body, _ := io.ReadAll(io.LimitReader(res.Body, 64))
	if res.StatusCode != http.StatusOK || strings.TrimSpace(string(body)) != "ok" {
		s.Err = fmt.Errorf("it answers %s, which is not what a weft server says", res.Status)
		return s
	}
	chain := res.TLS.PeerCertificates
	s.Own = slices.ContainsFunc(own, func(der []byte) bool { return bytes.Equal(der, chain[0].Raw) })
	s.Expires = chain[0].NotAfter
	if !s.Own {
		s.Trusted = trusted(ctx, u)
	}
	return s
}

// trusted reports whether a browser would take the site's certificate.
func trusted(ctx context.Context, u *url.URL) bool {
	port := u.Port()
	if port == "" {
		port = "443"
	}
	c, err := (&tls.Dialer{}).DialContext(ctx, "tcp", net.JoinHostPort(u.Hostname(), port))
	if err == nil {
		c.Close()
	}
	return err == nil
}

// diskFree is how many bytes can be written in dir, -1 when that is unknown.
func diskFree(dir string) int64 {
	var st unix.Statfs_t
	if unix.Statfs(dir, &st) != nil {
		return -1
	}
	return int64(st.Bavail) * int64(st.Bsize)
}

// buildTime is that of the commit of this program, zero when unknown.
func buildTime() time.Time {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.time" {
				if t, err := time.Parse(time.RFC3339, s.Value); err == nil {
					return t
				}
			}
		}
	}
	return time.Time{}
}
