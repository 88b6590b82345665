package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"regexp"
	"runtime"
	"sort"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"weft/cmd/internal/cli"
	"weft/overlay/doctor"
)

func bugreportCmd() *cobra.Command {
	var out, state string
	var names bool
	var asJSON *bool
	cmd := &cobra.Command{
		Use:   "bugreport",
		Short: "Write a local file with the information needed to understand a problem",
		Long: `Write a local file with the information needed to understand a problem: status,
netcheck, the doctor's findings, interfaces. Nothing is ever uploaded: read the
file, then decide who gets it. It never contains keys or tokens; names and public
addresses are replaced unless --names is given.`,
		Args:              args(cobra.NoArgs),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if out == "" {
				out = "weft-bugreport-" + time.Now().UTC().Format("20060102-150405") + ".tar.gz"
			}
			parts := report(cmd, state)
			if !names {
				redact(parts)
			}
			if err := writeBundle(out, parts); err != nil {
				return err
			}
			if *asJSON {
				if err := cli.PrintObject(cmd.OutOrStdout(), "bugreport/1", map[string]string{"file": out}); err != nil {
					return err
				}
			} else {
				fmt.Fprintln(cmd.OutOrStdout(), out)
			}
			fmt.Fprintln(cmd.ErrOrStderr(), "weft: nothing was sent anywhere; read it with: tar -xzOf "+out)
			return nil
		},
	}
	asJSON = cli.JSONFlag(cmd)
	f := cmd.Flags()
	f.StringVarP(&out, "output", "o", "", "file to write (default weft-bugreport-TIME.tar.gz)")
	f.StringVar(&state, "state", defaultState(), "the daemon's state directory")
	f.BoolVar(&names, "names", false, "keep names and public addresses")
	return cmd
}

// part is one file of the bundle.
type part struct {
	name    string
	content []byte
}

// report collects the parts. A part that cannot be read contains the reason.
func report(cmd *cobra.Command, state string) []part {
	ctx, cancel := context.WithTimeout(cmd.Context(), 30*time.Second)
	defer cancel()
	c := client(cmd)
	facts := collect(ctx, c, state)
	parts := []part{{"version.txt", fmt.Appendf(nil, "%s\n%s %s/%s\n", cli.Version(), runtime.Version(), runtime.GOOS, runtime.GOARCH)}}
	add := func(name string, v any, err error) {
		b, jerr := json.MarshalIndent(v, "", "  ")
		if err == nil {
			err = jerr
		}
		if err != nil {
			b = []byte("not available: " + err.Error())
		}
		parts = append(parts, part{name, append(b, '\n')})
	}
	add("status.json", facts.Status, facts.DaemonErr)
	add("netcheck.json", facts.Netcheck, facts.DaemonErr)
	add("doctor.json", doctor.Diagnose(facts), nil)
	parts = append(parts, part{"interfaces.txt", interfaces()})
	if b, err := os.ReadFile("/etc/resolv.conf"); err == nil {
		parts = append(parts, part{"resolv.conf", b[:min(len(b), 16<<10)]})
	}
	return parts
}

func interfaces() []byte {
	var b bytes.Buffer
	list, err := net.Interfaces()
	if err != nil {
		fmt.Fprintln(&b, err)
	}
	for _, i := range list {
		addrs, _ := i.Addrs()
		fmt.Fprintf(&b, "%s mtu %d %s %v\n", i.Name, i.MTU, i.Flags, addrs)
	}
	return b.Bytes()
}

// secret matches text that must not be in any bundle.
const secret = `weft1[0-9A-Za-z]{20,}|-----BEGIN [^-]*PRIVATE KEY-----[^-]*-----END [^-]*PRIVATE KEY-----`

// address matches text that may be an IP address; net.ParseIP decides.
const address = `[0-9]{1,3}(?:\.[0-9]{1,3}){3}|[0-9a-fA-F]{0,4}(?::[0-9a-fA-F]{0,4}){2,7}`

// redact removes secrets, and replaces each name and public address by the same word
// everywhere, so that the report still makes sense.
func redact(parts []part) {
	secret, address := regexp.MustCompile(secret), regexp.MustCompile(address)
	words := map[string]string{}
	alias := func(kind, s string) string {
		if words[s] == "" {
			words[s] = fmt.Sprintf("%s%d", kind, len(words)+1)
		}
		return words[s]
	}
	var names []string
	for _, p := range parts {
		if p.name == "status.json" {
			names = namesIn(p.content)
		}
	}
	for i := range parts {
		text := secret.ReplaceAllString(string(parts[i].content), "[secret]")
		text = address.ReplaceAllStringFunc(text, func(s string) string {
			ip := net.ParseIP(s)
			if ip == nil || ip.IsPrivate() || ip.IsLoopback() || ip.IsUnspecified() || ip.IsLinkLocalUnicast() || ip.IsMulticast() {
				return s
			}
			return alias("address", ip.String())
		})
		for _, n := range names {
			text = strings.ReplaceAll(text, n, alias("name", n))
		}
		parts[i].content = []byte(text)
	}
}

// namesIn returns the names in a status, the longest first, so that a name inside
// another is not replaced first.
func namesIn(status []byte) []string {
	var st struct {
		Server struct{ URL string }
		Self   struct{ Name, FQDN string }
		Peers  []struct{ Name, FQDN string }
	}
	if json.Unmarshal(status, &st) != nil {
		return nil
	}
	seen := map[string]bool{}
	var out []string
	add := func(n string) {
		if len(n) > 2 && !seen[n] {
			seen[n] = true
			out = append(out, n)
		}
	}
	if u, err := url.Parse(st.Server.URL); err == nil && net.ParseIP(u.Hostname()) == nil {
		add(u.Hostname())
	}
	for _, p := range append(st.Peers, st.Self) {
		add(p.FQDN)
		add(p.Name)
	}
	sort.Slice(out, func(i, j int) bool { return len(out[i]) > len(out[j]) })
	return out
}

func writeBundle(path string, parts []part) error {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	now := time.Now()
	t := tar.NewWriter(z)
	for _, p := range parts {
		h := tar.Header{Name: "weft-bugreport/" + p.name, Mode: 0o600, Size: int64(len(p.content)), ModTime: now}
		if err := t.WriteHeader(&h); err != nil {
			return fmt.Errorf("pack %s: %w", p.name, err)
		}
		t.Write(p.content) // into memory; Close returns errors
	}
	if err := errors.Join(t.Close(), z.Close()); err != nil {
		return fmt.Errorf("pack the report: %w", err)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	_, err = f.Write(b.Bytes())
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}
