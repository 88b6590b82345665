//go:build e2e

package lab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Debian systems for tests that need another /etc, another init or a package manager.
// debootstrap makes them once; they are kept in $WEFT_TEST_ROOT (default
// /var/cache/weft-test):
//
//	CODENAME/base          the system: systemd, D-Bus, iproute2
//	CODENAME/SET           an overlayfs layer with a set of packages
//	CODENAME/run/…         written by running systems, removed after the test
//
// Remove the directory to make them again. They need debootstrap and
// systemd-container, and a file system that overlayfs can write to.

// suite is this machine's own, so that its archive is available.
const suiteDefault = "bookworm"

// basePackages are in every root.
const basePackages = "systemd,systemd-sysv,dbus,iproute2"

// System is a Debian system that runs on a machine of the lab. Files written in it are
// removed after the test.
type System struct {
	lab  *Lab
	Host *Namespace
	Dir  string // its file system, while it runs
	name string
	proc *Proc
	init int // process id of its PID 1
	boot bool
}

// path is a file of the system, as seen from outside.
func (r *System) path(name string) string {
	return filepath.Join("/proc", strconv.Itoa(r.init), "root", name)
}

// rootCache is the directory of the roots.
func rootCache() string {
	dir := os.Getenv("WEFT_TEST_ROOT")
	if dir == "" {
		dir = "/var/cache/weft-test"
	}
	return filepath.Join(dir, suite())
}

func suite() string {
	b, _ := os.ReadFile("/etc/os-release")
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), "VERSION_CODENAME="); ok {
			return v
		}
	}
	return suiteDefault
}

// mirror is the archive that this machine uses.
func mirror() string {
	out, _ := exec.Command("apt-get", "indextargets", "--format", "$(SITE) $(RELEASE) $(COMPONENT)", "Created-By: Packages").Output()
	for line := range strings.Lines(string(out)) {
		if f := strings.Fields(line); len(f) == 3 && f[1] == suite() && f[2] == "main" {
			return f[0]
		}
	}
	return "http://deb.debian.org/debian"
}

// DebianRoot runs a Debian with these packages on n until the test ends. With boot, PID
// 1 is systemd and the call returns once that is up; without, only programs of Run and
// Start run in it. /usr/local/bin contains the lab's binaries, and /dev/net/tun exists.
func (l *Lab) DebianRoot(n *Namespace, boot bool, packages ...string) *System {
	l.Helper()
	lower := l.rootLayers(packages)
	r := &System{lab: l, Host: n, boot: boot, name: l.rootName()}
	work := filepath.Join(rootCache(), "run", r.name)
	r.Dir = filepath.Join(work, "root")
	l.Cleanup(func() { sweepRoot(work) })
	for _, d := range []string{"upper", "work", "root"} {
		if err := os.MkdirAll(filepath.Join(work, d), 0o755); err != nil {
			l.Fatalf("%v", err)
		}
	}
	opts := "lowerdir=" + strings.Join(lower, ":") + ",upperdir=" + work + "/upper,workdir=" + work + "/work"
	if err := unix.Mount("overlay", r.Dir, "overlay", 0, opts); err != nil {
		l.Fatalf("mount a root for %s: %v", strings.Join(packages, " "), err)
	}
	for _, name := range []string{"weft", "weft-server"} {
		if err := copyFile(filepath.Join(l.Bin, name), filepath.Join(r.Dir, "usr/local/bin", name), 0o755); err != nil && !errors.Is(err, os.ErrNotExist) {
			l.Fatalf("%v", err)
		}
	}
	r.start()
	return r
}

// rootName is a unique name.
func (l *Lab) rootName() string { return fmt.Sprintf("%s-root%d", l.id, files.Add(1)) }

// start runs it with systemd-nspawn, without registering it with a systemd outside:
// there may be none.
func (r *System) start() {
	l := r.lab
	l.Helper()
	// Use a separate device node: the system that boots in there sets the mode of
	// /dev/net/tun.
	tun := filepath.Join(filepath.Dir(r.Dir), "tun")
	if err := unix.Mknod(tun, unix.S_IFCHR, int(unix.Mkdev(10, 200))); err != nil && !errors.Is(err, os.ErrExist) {
		l.Fatalf("make a node for /dev/net/tun: %v", err)
	}
	if err := os.Chmod(tun, 0o666); err != nil {
		l.Fatalf("%v", err)
	}
	// Not through ip netns exec: that hides the control groups.
	args := []string{"--pdeathsig=KILL", "--", "systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--directory=" + r.Dir, "--machine=" + r.name,
		"--network-namespace-path=/run/netns/" + r.Host.Name, "--capability=CAP_NET_ADMIN", "--bind=" + tun + ":/dev/net/tun",
		"--resolv-conf=off", "--timezone=off", "--link-journal=no", "--console=pipe"}
	if r.boot {
		args = append(args, "--boot")
	} else {
		args = append(args, "--as-pid2", "sleep", "infinity")
	}
	// Use separate control groups: two systemds in one group remove each other's, and
	// their services end with status 219.
	groups := controlGroups(r.name)
	args = append(append([]string{"-c", `while [ "$1" != run ]; do echo $$ >"$1/cgroup.procs" && shift || exit; done; shift; exec setpriv "$@"`, "sh"}, groups...), append([]string{"run"}, args...)...)
	cmd := exec.Command("sh", args...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8", "SYSTEMD_NSPAWN_LOCK=0"}
	r.proc = l.start(cmd, r.Host, "systemd-nspawn")
	l.Cleanup(func() {
		r.stop()
		removeGroups(groups)
	})
	l.Until(30*time.Second, "the root's first process", func() bool {
		select {
		case <-r.proc.Done():
			l.Fatalf("systemd-nspawn ended:\n%s%s", tail(r.proc.Out()), tail(r.proc.Err()))
		default:
		}
		r.init = childOf(r.proc.PID())
		return isInit(r.init) && r.ready()
	})
}

// controlGroups makes groups with that name below this process's, in the hierarchies
// that systemd uses.
func controlGroups(name string) (dirs []string) {
	b, _ := os.ReadFile("/proc/self/cgroup")
	for line := range strings.Lines(string(b)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) < 3 || f[1] != "" && f[1] != "name=systemd" {
			continue
		}
		root := "/sys/fs/cgroup/systemd"
		if f[1] == "" {
			root = "/sys/fs/cgroup/unified"
			if _, err := os.Stat(root); err != nil {
				root = "/sys/fs/cgroup"
			}
		}
		dir := filepath.Join(root, f[2], name)
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
			continue
		}
		if _, err := os.Stat(filepath.Join(dir, "cgroup.procs")); err == nil {
			dirs = append(dirs, dir)
		}
	}
	return dirs
}

// removeGroups removes control groups, the innermost first. A group that is still in
// use stays.
func removeGroups(dirs []string) {
	for _, dir := range dirs {
		var all []string
		filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				all = append(all, path)
			}
			return nil
		})
		for _, d := range slices.Backward(all) {
			os.Remove(d)
		}
	}
}

// ready reports whether DebianRoot's promises hold.
func (r *System) ready() bool {
	if !r.boot { // its command runs last
		comm, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", childOf(r.init)))
		return string(comm) == "sleep\n"
	}
	// degraded: some irrelevant unit does not work in a container.
	out := strings.TrimSpace(r.Run("systemctl", "is-system-running").Out)
	return out == "running" || out == "degraded"
}

// childOf is the process that systemd-nspawn has started, 0 if there is none yet.
func childOf(pid int) int {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	f := strings.Fields(string(b))
	if len(f) == 0 {
		return 0
	}
	n, _ := strconv.Atoi(f[len(f)-1])
	return n
}

// isInit reports whether a process is the first of its namespace: systemd-nspawn starts
// others before that, which end again.
func isInit(pid int) bool {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 2 && f[0] == "NSpid:" {
			return f[len(f)-1] == "1"
		}
	}
	return false
}

// inside enters the root for programs that keep running: their process id stays, so
// they are not in the root's process namespace.
func (r *System) inside(args []string) []string {
	return append([]string{"nsenter", "-t", strconv.Itoa(r.init), "-m", "-u", "-i", "--"}, args...)
}

// whole enters the root for programs that end by themselves, with its process
// namespace: systemd only talks to processes that it can see.
func (r *System) whole(args []string) []string {
	return append([]string{"nsenter", "-t", strconv.Itoa(r.init), "-m", "-u", "-i", "-p", "--"}, args...)
}

// Run runs a program in the root until it ends, as root, at most a minute.
func (r *System) Run(args ...string) Result {
	return r.RunInput("", args...)
}

// RunInput is Run with standard input.
func (r *System) RunInput(stdin string, args ...string) Result {
	res := r.Host.RunInput(Root, stdin, time.Minute, r.whole(args)...)
	res.Args = args
	return res
}

// Must is Run that fails the test unless the exit code is 0.
func (r *System) Must(args ...string) string {
	r.lab.Helper()
	res := r.Run(args...)
	if res.Code != 0 {
		r.lab.Fatalf("%v", res)
	}
	return res.Out
}

// Start starts a program in the root, as root; it is killed at the end of the
// test.
func (r *System) Start(args ...string) *Proc {
	r.lab.Helper()
	return r.Host.Start(Root, r.inside(args)...)
}

// Node is a node whose daemon and verbs run in the root, as root.
func (r *System) Node(name string) *Node {
	return &Node{Host: r.Host, Name: name, State: "/var/lib/weft", Sock: "/run/weft/weft.sock", As: Root, In: r}
}

// ReadFile reads a file of the root as its programs see it.
func (r *System) ReadFile(path string) string { return r.Run("cat", path).Out }

// WriteFile writes a file of the root.
func (r *System) WriteFile(path, content string) {
	r.lab.Helper()
	if res := r.RunInput(content, "sh", "-c", `cat > "$1"`, "sh", path); res.Code != 0 {
		r.lab.Fatalf("%v", res)
	}
}

// stop ends it like a container: SIGRTMIN+4 asks systemd to power off.
func (r *System) stop() {
	if r.init != 0 {
		if r.boot {
			syscall.Kill(r.init, syscall.Signal(34+4))
		} else {
			syscall.Kill(r.init, syscall.SIGKILL)
		}
		select {
		case <-r.proc.Done():
		case <-time.After(15 * time.Second):
		}
	}
	r.proc.end()
	r.init = 0
	os.RemoveAll("/run/systemd/nspawn/propagate/" + r.name)
}
