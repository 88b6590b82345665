package service

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Kind is what starts daemons on a system.
type Kind string

// The kinds. SystemdUser is a user's own daemon, without root.
const (
	Systemd     Kind = "systemd"
	SystemdUser Kind = "systemd-user"
	Procd       Kind = "procd"
	OpenRC      Kind = "openrc"
	Launchd     Kind = "launchd"
	Windows     Kind = "windows"
)

// ErrNoManager is returned by Detect where nothing that it knows starts
// daemons.
var ErrNoManager = errors.New("neither systemd, procd nor OpenRC runs here")

// Detect finds out what starts daemons on a system with the file tree root
// ("/"). goos is runtime.GOOS.
func Detect(goos, root string, user bool) (Kind, error) {
	there := func(path string) bool { _, err := os.Stat(filepath.Join(root, path)); return err == nil }
	switch goos {
	case "darwin":
		return Launchd, nil
	case "windows":
		return Windows, nil
	case "linux":
	default:
		return "", ErrNoManager
	}
	switch {
	case there("/run/systemd/system") && user:
		return SystemdUser, nil
	case there("/run/systemd/system"):
		return Systemd, nil
	case user:
		return "", errors.New("without root it takes systemd; start it yourself, for example from cron: @reboot weft run")
	case there("/sbin/procd"):
		return Procd, nil
	case there("/sbin/openrc-run"):
		return OpenRC, nil
	}
	return "", ErrNoManager
}

// Plan is what has to be done, in this order.
type Plan struct {
	Stale    []string // files to remove
	Files    []File   // to write
	Commands []Command
	Remove   []string // files to remove, and directories if they are empty then
	Last     []Command
}

// File is one file of a Plan.
type File struct {
	Path    string
	Mode    fs.FileMode
	Content string
}

// Command is one command of a Plan. One that is Optional may fail.
type Command struct {
	Args     []string
	Optional bool
}

func run(args ...string) Command { return Command{Args: args} }
func try(args ...string) Command { return Command{Args: args, Optional: true} }

// Place says where a user's own files go; the system's do not need it.
type Place struct {
	Home   string // the user's
	Config string // XDG_CONFIG_HOME, else Home/.config
}

// Install returns the plan that makes s start now and at every boot. tun is the
// network interface that it may make, "" for none. start says whether to start
// it now, or only at the next boot.
func (s Service) Install(k Kind, p Place, tun string, start bool) Plan {
	now := func(c ...Command) []Command {
		if !start {
			return nil
		}
		return c
	}
	switch k {
	case Systemd:
		plan := Plan{Files: []File{{s.unitPath(k, p), 0o644, s.Systemd()}}}
		if tun != "" {
			plan.Files = append(plan.Files, File{s.dropIn(), 0o644, s.SystemdTUN(tun)})
		} else {
			plan.Stale = []string{s.dropIn()}
		}
		plan.Commands = append([]Command{run("systemctl", "daemon-reload"), run("systemctl", "enable", s.Name)}, now(run("systemctl", "restart", s.Name))...)
		return plan
	case SystemdUser:
		return Plan{
			Files: []File{{s.unitPath(k, p), 0o644, s.SystemdUser()}},
			Commands: append([]Command{
				run("systemctl", "--user", "daemon-reload"), run("systemctl", "--user", "enable", s.Name),
				try("loginctl", "enable-linger"), // so that it runs while nobody is signed in
			}, now(run("systemctl", "--user", "restart", s.Name))...),
		}
	case Procd:
		path := s.unitPath(k, p)
		return Plan{Files: []File{{path, 0o755, s.Procd()}}, Commands: append([]Command{run(path, "enable")}, now(run(path, "restart"))...)}
	case OpenRC:
		return Plan{
			Files:    []File{{s.unitPath(k, p), 0o755, s.OpenRC()}},
			Commands: append([]Command{run("rc-update", "add", s.Name, "default")}, now(run("rc-service", s.Name, "restart"))...),
		}
	case Launchd:
		path := s.unitPath(k, p)
		return Plan{
			Files:    []File{{path, 0o644, s.Launchd("/var/log/" + s.Name + ".log")}},
			Commands: now(try("launchctl", "bootout", "system", path), run("launchctl", "bootstrap", "system", path)),
		}
	case Windows:
		return Plan{Commands: append([]Command{
			try("sc.exe", "stop", s.Name), try("sc.exe", "delete", s.Name),
			run("sc.exe", "create", s.Name, "binPath=", s.windowsCommand(), "start=", "auto", "DisplayName=", s.Description),
			run("sc.exe", "failure", s.Name, "reset=", "86400", "actions=", "restart/2000"),
		}, now(run("sc.exe", "start", s.Name))...)}
	}
	return Plan{}
}

// Uninstall returns the plan that ends s and takes its files away. Its state
// stays.
func (s Service) Uninstall(k Kind, p Place) Plan {
	path := s.unitPath(k, p)
	switch k {
	case Systemd:
		return Plan{
			Commands: []Command{try("systemctl", "disable", "--now", s.Name)},
			Remove:   []string{path, s.dropIn(), filepath.Dir(s.dropIn())},
			Last:     []Command{try("systemctl", "daemon-reload"), try("systemctl", "reset-failed", s.Name)},
		}
	case SystemdUser:
		return Plan{Commands: []Command{try("systemctl", "--user", "disable", "--now", s.Name)}, Remove: []string{path}}
	case Procd:
		return Plan{Commands: []Command{try(path, "stop"), try(path, "disable")}, Remove: []string{path}}
	case OpenRC:
		return Plan{Commands: []Command{try("rc-service", s.Name, "stop"), try("rc-update", "del", s.Name)}, Remove: []string{path}}
	case Launchd:
		return Plan{Commands: []Command{try("launchctl", "bootout", "system", path)}, Remove: []string{path}}
	case Windows:
		return Plan{Commands: []Command{try("sc.exe", "stop", s.Name), try("sc.exe", "delete", s.Name)}}
	}
	return Plan{}
}

// unitPath is the file that describes s to a system.
func (s Service) unitPath(k Kind, p Place) string {
	switch k {
	case Systemd:
		return "/etc/systemd/system/" + s.Name + ".service"
	case SystemdUser:
		return filepath.Join(p.Config, "systemd/user", s.Name+".service")
	case Procd, OpenRC:
		return "/etc/init.d/" + s.Name
	case Launchd:
		return "/Library/LaunchDaemons/" + s.LaunchdLabel() + ".plist"
	}
	return ""
}

func (s Service) dropIn() string { return "/etc/systemd/system/" + s.Name + ".service.d/tun.conf" }

// windowsCommand is a command line as CommandLineToArgvW reads it. Windows
// paths and our flags hold no quotes.
func (s Service) windowsCommand() string {
	words := []string{`"` + s.Program + `"`}
	for _, a := range s.Args {
		if strings.ContainsAny(a, " \t") || a == "" {
			a = `"` + a + `"`
		}
		words = append(words, a)
	}
	return strings.Join(words, " ")
}

// Text returns the file that describes s to a system, for those who package.
func (s Service) Text(k Kind) (string, error) {
	switch k {
	case Systemd:
		return s.Systemd(), nil
	case SystemdUser:
		return s.SystemdUser(), nil
	case Procd:
		return s.Procd(), nil
	case OpenRC:
		return s.OpenRC(), nil
	case Launchd:
		return s.Launchd("/var/log/" + s.Name + ".log"), nil
	}
	return "", fmt.Errorf("there is no service file for %q", k)
}

// Apply does what a plan says. It stops at the first command that fails and may
// not; doing it again is harmless.
func Apply(ctx context.Context, p Plan) error {
	if err := remove(p.Stale); err != nil {
		return err
	}
	for _, f := range p.Files {
		if err := os.MkdirAll(filepath.Dir(f.Path), 0o755); err != nil {
			return err
		}
		if err := WriteFile(f.Path, []byte(f.Content), f.Mode); err != nil {
			return err
		}
	}
	if err := execute(ctx, p.Commands); err != nil {
		return err
	}
	if err := remove(p.Remove); err != nil {
		return err
	}
	return execute(ctx, p.Last)
}

func execute(ctx context.Context, commands []Command) error {
	for _, c := range commands {
		cmd := exec.CommandContext(ctx, c.Args[0], c.Args[1:]...)
		cmd.WaitDelay = 2 * time.Second // a daemon may have inherited where it writes
		out, err := cmd.CombinedOutput()
		if err != nil && !c.Optional && !errors.Is(err, exec.ErrWaitDelay) {
			return fmt.Errorf("%s: %w: %s", strings.Join(c.Args, " "), err, strings.TrimSpace(string(out)))
		}
	}
	return nil
}

func remove(paths []string) error {
	for _, path := range paths {
		err := os.Remove(path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTEMPTY) {
			return err
		}
	}
	return nil
}

// WriteFile replaces a file in one step: whoever looks sees the old content or
// the new one, also after a crash. The file may be a program that runs.
func WriteFile(path string, b []byte, mode fs.FileMode) (err error) {
	tmp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*.tmp")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			tmp.Close()
			os.Remove(tmp.Name())
		}
	}()
	if _, err = tmp.Write(b); err != nil {
		return err
	}
	if err = tmp.Chmod(mode); err != nil {
		return err
	}
	if err = tmp.Sync(); err != nil {
		return err
	}
	if err = tmp.Close(); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), path)
}
