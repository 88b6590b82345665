package main

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"weft/cmd/internal/cli"
	"weft/overlay/doctor"
	"weft/overlay/localapi"
	facts "weft/overlay/report"
)

// lookTime bounds each check of the doctor.
const lookTime = 5 * time.Second

func doctorCmd() *cobra.Command {
	var asJSON *bool
	var state string
	var fips bool
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Find problems, their causes, and the commands that fix them",
		Long: `Find problems, their causes, and the commands that fix them. Exit code 1 if
something does not work. Nothing is changed, and only your own server, its relays
and this machine's resolver are contacted.

With --fips it says for an audit which cryptographic module the daemon uses, where,
and what is outside the module.`,
		Args:              args(cobra.NoArgs),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if fips {
				return doctorFIPS(cmd, *asJSON)
			}
			found := doctor.Diagnose(collect(cmd.Context(), client(cmd), state))
			if *asJSON {
				if err := cli.PrintObject(cmd.OutOrStdout(), "doctor/1", map[string]any{"findings": found}); err != nil {
					return err
				}
			} else if err := cli.PrintFindings(cmd.OutOrStdout(), found); err != nil {
				return err
			}
			if found.Broken() {
				return exitCode(1)
			}
			return nil
		},
	}
	asJSON = cli.JSONFlag(cmd)
	cmd.Flags().BoolVar(&fips, "fips", false, "say what an auditor asks about FIPS 140-3")
	cmd.Flags().StringVar(&state, "state", defaultState(), "the daemon's state directory")
	return cmd
}

// collect gathers the facts. A fact that cannot be determined stays unknown.
func collect(ctx context.Context, c *localapi.Client, state string) doctor.Facts {
	f := doctor.Facts{Now: time.Now(), Version: cli.Version(), State: state, Free: -1, Resolve: map[string]error{}, MTU: routeMTU(), Installed: serviceInstalled()}
	st, err := c.Status(ctx)
	if err != nil {
		f.DaemonErr = err
	} else {
		f.Status = &st
	}
	if fi, err := os.Stat(state); err == nil && fi.IsDir() {
		f.Free = facts.DiskFree(state)
		f.ReadOnly = writable(state)
	}
	if f.Status == nil {
		return f
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		if n, err := c.Netcheck(ctx); err == nil {
			f.Netcheck = &n
		}
	})
	if u, err := url.Parse(st.Server.URL); err == nil && u.Hostname() != "" {
		var lookup error
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, lookTime)
			defer cancel()
			_, lookup = net.DefaultResolver.LookupHost(ctx, u.Hostname())
		})
		if !st.Server.Online {
			wg.Go(func() { f.Portal = portal(ctx, u.Hostname()) })
		}
		wg.Wait()
		f.Resolve[u.Hostname()] = lookup
	}
	wg.Wait()
	return f
}

// portal requests the server's host by plain HTTP. A captive portal answers instead,
// with a redirect to its own address.
func portal(ctx context.Context, host string) string {
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, (&url.URL{Scheme: "http", Host: host, Path: "/"}).String(), nil)
	if err != nil {
		return ""
	}
	h := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	res, err := h.Do(req)
	if err != nil {
		return ""
	}
	res.Body.Close()
	if to, err := res.Location(); err == nil && to.Hostname() != host {
		return to.Scheme + "://" + to.Host + "/"
	}
	return ""
}

// writable checks whether files can be made in dir, unless it belongs to another user.
func writable(dir string) error {
	f, err := os.CreateTemp(dir, ".doctor.*.tmp")
	if err != nil {
		if errors.Is(err, os.ErrPermission) {
			return nil
		}
		return err
	}
	f.Close()
	return os.Remove(f.Name())
}

// serviceInstalled reports whether weft install has installed a service.
func serviceInstalled() bool {
	for _, path := range []string{"/etc/systemd/system/weft.service", "/usr/lib/systemd/system/weft.service", "/lib/systemd/system/weft.service"} {
		if _, err := os.Stat(filepath.Clean(path)); err == nil {
			return true
		}
	}
	return false
}

// routeMTU is the smallest MTU of the interfaces that may have a default route, 0 if
// there is none.
func routeMTU() int {
	list, err := net.Interfaces()
	if err != nil {
		return 0
	}
	mtu := 0
	for _, i := range list {
		addrs, err := i.Addrs()
		if err != nil || len(addrs) == 0 || i.Flags&net.FlagUp == 0 || i.Flags&(net.FlagLoopback|net.FlagPointToPoint) != 0 {
			continue
		}
		if mtu == 0 || i.MTU < mtu {
			mtu = i.MTU
		}
	}
	return mtu
}
