package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"time"

	"github.com/spf13/cobra"

	"weft/cmd/internal/cli"
	"weft/cmd/internal/service"
	"weft/overlay/cert"
	"weft/overlay/localapi"
	"weft/overlay/status"
)

// Where an installed node is, unless the system has another convention.
const (
	installedProgram = "/usr/local/bin/weft"
	installedState   = "/var/lib/weft"
	firstBootToken   = "/etc/weft/token"
	socketGroup      = "weft"
	unitUser         = "weft-node" // not the group's name: otherwise systemd assumes a user of that name
)

type installOptions struct {
	token, tokenFile string
	hostname, tun    string
	user, firstBoot  bool
	release, print   string
	asJSON           *bool // of the verb
}

func installCmd() *cobra.Command {
	var o installOptions
	cmd := &cobra.Command{
		Use:   "install",
		Short: "Install weft as a service of this machine, and join",
		Long: `Install weft as a service of this machine that starts at every boot, and join the
network if a token is given. Run it again to repair or upgrade.

For a golden image: weft install --first-boot --token-file FILE (a reusable
token) starts nothing now; each copy of the image joins as a device of its own
when it boots for the first time.

Without root: weft install --user makes a service for this user only.`,
		Args:              args(cobra.NoArgs),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.print != "" {
				return printService(cmd, o)
			}
			return o.install(cmd)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.token, "token", "", "join with this token (visible to all users in the process list)")
	f.StringVar(&o.tokenFile, "token-file", "", "join with the token in this file; - is standard input")
	f.StringVar(&o.hostname, "hostname", "", "requested device name when joining (default: this machine's)")
	f.StringVar(&o.tun, "tun", "", "create a network interface with this name (default: none, user space)")
	f.BoolVar(&o.user, "user", false, "a service for this user only, without root")
	f.BoolVar(&o.firstBoot, "first-boot", false, "join when the machine boots for the first time, not now")
	f.StringVar(&o.release, "release", "", "directory with manifest.json, its signature and release.pub: refuse to install a program that the manifest does not list")
	o.asJSON = cli.JSONFlag(cmd)
	f.StringVar(&o.print, "print", "", "only print the service file for systemd, systemd-user, procd, openrc or launchd")
	return cmd
}

// nodeService describes the daemon for a service manager.
func nodeService(kind service.Kind, o installOptions) (service.Service, service.Place) {
	s := service.Service{
		Name: "weft", Description: "weft: reach this device by its name", Program: installedProgram,
		Args:    []string{"run", "--state", installedState, "--socket", systemSocket},
		Cleanup: []string{"dns", "restore"},
	}
	var place service.Place
	switch kind {
	case service.Systemd:
		s.User, s.Group = unitUser, socketGroup
		s.Environment = []string{"WEFT_SOCKET_GROUP=" + socketGroup}
	case service.SystemdUser:
		place.Home, _ = os.UserHomeDir()
		if place.Config = os.Getenv("XDG_CONFIG_HOME"); !filepath.IsAbs(place.Config) {
			place.Config = filepath.Join(place.Home, ".config")
		}
		s.Program = filepath.Join(place.Home, ".local/bin/weft")
		s.Args, s.Cleanup = []string{"run"}, nil
	case service.OpenRC:
		s.Environment = []string{"WEFT_SOCKET_GROUP=" + socketGroup}
	case service.Procd:
		s.Program = "/usr/bin/weft"
		s.Args = []string{"run", "--state", "/etc/weft/state", "--socket", systemSocket} // /var is in memory on that system
	case service.Windows:
		data := os.Getenv("ProgramData")
		s.Program = filepath.Join(os.Getenv("ProgramFiles"), "weft", "weft.exe")
		s.Args = []string{"run", "--state", filepath.Join(data, "weft"), "--socket", filepath.Join(data, "weft", "weft.sock")}
	}
	if o.hostname != "" {
		s.Args = append(s.Args, "--hostname", o.hostname)
	}
	if o.tun != "" && kind != service.Systemd { // systemd gets it by a drop-in
		s.Args = append(s.Args, "--tun", o.tun)
	}
	return s, place
}

// stateOf and socketOf are the paths of an installed node.
func stateOf(s service.Service) string  { return argument(s, "--state", userState()) }
func socketOf(s service.Service) string { return argument(s, "--socket", userSocket()) }

func argument(s service.Service, flag, otherwise string) string {
	for i, a := range s.Args[:max(len(s.Args)-1, 0)] {
		if a == flag {
			return s.Args[i+1]
		}
	}
	return otherwise
}

func printService(cmd *cobra.Command, o installOptions) error {
	s, _ := nodeService(service.Kind(o.print), o)
	text, err := s.Text(service.Kind(o.print))
	if err != nil {
		return usagef("%w; there are systemd, systemd-user, procd, openrc and launchd", err)
	}
	if *o.asJSON {
		return cli.PrintObject(cmd.OutOrStdout(), "service-file/1", map[string]string{"text": text})
	}
	_, err = fmt.Fprint(cmd.OutOrStdout(), text)
	return err
}

func (o *installOptions) install(cmd *cobra.Command) error {
	ctx := cmd.Context()
	if o.user && (o.tun != "" || o.firstBoot) {
		return usagef("--user cannot be combined with --tun or --first-boot: both need root")
	}
	if o.firstBoot && o.token == "" && o.tokenFile == "" {
		return usagef("--first-boot needs a token: --token-file FILE, with a reusable one from weft-server keys create --reusable")
	}
	if err := rights(o.user, "install"); err != nil {
		return err
	}
	kind, err := service.Detect(runtime.GOOS, "/", o.user)
	if err != nil {
		return &status.Error{Kind: status.KindFailed, Message: err.Error(), Hint: "start it by other means: weft run --token-file FILE"}
	}
	token, err := o.readToken(cmd)
	if err != nil {
		return err
	}
	if token != "" {
		if _, err := cert.ParseToken(token); err != nil {
			return &status.Error{Kind: status.KindUsage, Message: err.Error(), Hint: "copy the whole line again, or make a new token: weft-server keys create"}
		}
	}
	s, place := nodeService(kind, *o)
	if o.release != "" {
		if err := checkRelease(o.release, stateOf(s)); err != nil {
			return err
		}
	}
	if o.firstBoot && fileExists(filepath.Join(stateOf(s), "node.json")) {
		return &status.Error{Kind: status.KindFailed, Message: "this machine has already joined, so every copy of it would be the same device", Hint: "weft uninstall --purge, then again"}
	}
	if err := service.PlaceProgram(s.Program); err != nil {
		return err
	}
	if (kind == service.Systemd || kind == service.OpenRC) && !makeGroup(ctx, socketGroup) {
		s.Group, s.Environment = "", nil // root may use the socket
	}
	if err := service.Apply(ctx, s.Install(kind, place, o.tun, !o.firstBoot)); err != nil {
		return fmt.Errorf("install the service: %w", err)
	}
	out := cmd.OutOrStdout()
	if o.firstBoot {
		if err := o.prepareFirstBoot(ctx, kind, s, token); err != nil {
			return err
		}
		if *o.asJSON {
			return cli.PrintObject(out, "install/1", installed{State: stateOf(s), Socket: socketOf(s), FirstBoot: true})
		}
		fmt.Fprintln(out, "installed; each copy of this machine joins when it boots for the first time")
		return nil
	}
	return o.joinInstalled(cmd, s, token)
}

func (o *installOptions) readToken(cmd *cobra.Command) (string, error) {
	switch {
	case o.token != "" && o.tokenFile != "":
		return "", usagef("give the token once: --token or --token-file")
	case o.tokenFile != "":
		return readTokenFile(o.tokenFile, cmd.InOrStdin())
	case o.token != "":
		return checkToken([]byte(o.token), "--token")
	}
	return "", nil
}

// installed is the output of weft install --json. Name and addresses are "" until the
// device has joined.
type installed struct {
	State     string `json:"state"`
	Socket    string `json:"socket"`
	FirstBoot bool   `json:"first_boot"` // whether it joins at the first boot
	Name      string `json:"name"`
	FQDN      string `json:"fqdn"`
	IPv4      string `json:"ipv4"`
	IPv6      string `json:"ipv6"`
}

// joinInstalled waits for the service, joins, and prints the result.
func (o *installOptions) joinInstalled(cmd *cobra.Command, s service.Service, token string) error {
	ctx, cancel := context.WithTimeout(cmd.Context(), 60*time.Second)
	defer cancel()
	c := localapi.NewClient(socketOf(s))
	for c.Health(ctx) != nil {
		if err := sleep(ctx, 50*time.Millisecond); err != nil {
			return &status.Error{Kind: status.KindFailed, Message: "the service was installed but does not answer", Hint: "see: journalctl -u weft -e, or logread"}
		}
	}
	st, err := c.Status(ctx)
	if err != nil {
		return err
	}
	joined := st.State != status.StateUnjoined
	if token == "" && !joined {
		if *o.asJSON {
			return cli.PrintObject(cmd.OutOrStdout(), "install/1", installed{State: stateOf(s), Socket: socketOf(s)})
		}
		fmt.Fprintln(cmd.OutOrStdout(), "installed and running; join with: weft up TOKEN")
		return nil
	}
	if !joined {
		if _, err := c.Up(ctx, token); err != nil {
			return err
		}
	}
	if err := c.Wait(ctx, "", 30*time.Second); err != nil {
		return err
	}
	if st, err = c.Status(ctx); err != nil {
		return err
	}
	if o.release != "" {
		// Pinned with the identity, so that another release must come from the same
		// owner.
		if err := pinRelease(o.release, stateOf(s)); err != nil {
			return err
		}
	}
	if *o.asJSON {
		return cli.PrintObject(cmd.OutOrStdout(), "install/1", installed{State: stateOf(s), Socket: socketOf(s), Name: st.Self.Name, FQDN: st.Self.FQDN, IPv4: st.Self.IPv4, IPv6: st.Self.IPv6})
	}
	fmt.Fprintf(cmd.OutOrStdout(), "%s  %s  %s\n", cli.Plain(st.Self.FQDN), st.Self.IPv4, st.Self.IPv6)
	fmt.Fprintf(cmd.OutOrStdout(), "Reach it from your laptop: weft ssh %s, or http://%s/ through the proxy.\n", cli.Plain(st.Self.Name), cli.Plain(st.Self.Name))
	return nil
}

// prepareFirstBoot saves the token where only root can read it, and installs the
// service that joins with it at the next boot.
func (o *installOptions) prepareFirstBoot(ctx context.Context, kind service.Kind, s service.Service, token string) error {
	if err := os.MkdirAll(filepath.Dir(firstBootToken), 0o755); err != nil {
		return err
	}
	if err := service.WriteFile(firstBootToken, []byte(token+"\n"), 0o600); err != nil {
		return fmt.Errorf("save the token for the first boot: %w", err)
	}
	if kind != service.Systemd {
		// There the daemon is root and reads the file itself; it does not need the file
		// after it has joined.
		s.Args = append(s.Args, "--token-file", firstBootToken)
		return service.Apply(ctx, s.Install(kind, service.Place{}, o.tun, false))
	}
	return service.Apply(ctx, service.FirstBoot(s.Program, socketOf(s), firstBootToken))
}

// rights reports missing permissions before anything has been changed.
func rights(ofUser bool, verb string) error {
	root := os.Geteuid() == 0 || runtime.GOOS == "windows"
	switch {
	case !ofUser && !root:
		return &status.Error{Kind: status.KindFailed, Message: "this needs root", Hint: "sudo weft " + verb + ", or for a service of your own: weft " + verb + " --user"}
	case ofUser && root:
		return usagef("--user as root would make a service for root only; omit --user")
	}
	return nil
}

// makeGroup makes the group whose members may use the socket, and reports whether it
// exists.
func makeGroup(ctx context.Context, name string) bool {
	if _, err := user.LookupGroup(name); err == nil {
		return true
	}
	for _, c := range [][]string{{"groupadd", "--system", name}, {"addgroup", "-S", name}} {
		if exec.CommandContext(ctx, c[0], c[1:]...).Run() == nil {
			return true
		}
	}
	return false
}

func fileExists(path string) bool { _, err := os.Stat(path); return err == nil }
