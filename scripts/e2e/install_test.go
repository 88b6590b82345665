//go:build e2e

package e2e

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"weft/scripts/e2e/lab"
)

// The installation, in Debian systems with a real systemd: what a user pastes, the
// result, what survives, and what is left afterwards.

// installPackages are the packages beside the base system: those that the console's
// line needs.
var installPackages = []string{"busybox-static", "curl", "openssl"}

// installLab is a server with a release, a laptop, and a machine without weft.
type installLab struct {
	*lab.Lab
	t      *testing.T
	server *lab.Server
	laptop *lab.Node
	pi     *lab.Home // the machine's network
	sys    *lab.System
	key    string // file of the release key
	weft   string // SHA-256 of what is released
}

func newInstallLab(t *testing.T, boot bool) *installLab {
	t.Helper()
	for _, tool := range []string{"debootstrap", "systemd-nspawn", "nsenter"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Fatalf("%v (scripts/test installs what is needed)", err)
		}
	}
	l := lab.New(t, bin)
	i := &installLab{Lab: l, t: t, key: filepath.Join(l.Dir, "release.key")}
	host := l.Host("server")
	i.server = l.Serve(host, ":8443", "https://"+host.Addr+":8443")
	i.weft = i.release("1.0.0", i.key)
	i.laptop = l.Node(l.Home("lap").Namespace, "laptop")
	i.laptop.Up(i.server.NewKey().Token)
	i.pi = l.Home("pi")
	i.pi.Serve("127.0.0.1:80", lab.Page)
	i.sys = i.system(i.pi.Namespace, boot)
	return i
}

// system is a Debian without weft.
func (i *installLab) system(n *lab.Namespace, boot bool) *lab.System {
	i.Helper()
	s := i.DebianRoot(n, boot, installPackages...)
	s.Must("rm", "-f", "/usr/local/bin/weft", "/usr/local/bin/weft-server")
	return s
}

// release puts a release on the server. The programs for other systems do not run here.
func (i *installLab) release(version, key string) string {
	return i.Release(filepath.Join(i.server.Dir, "releases"), key, version, map[string][]byte{
		"weft-linux-riscv64": []byte("#!/bin/no-such-interpreter\n"),
	})
}

// paste runs the console's line in the system.
func (i *installLab) paste(s *lab.System, token string, args ...string) lab.Result {
	line := i.server.InstallLine(token)
	for _, a := range args {
		line += " " + a
	}
	return s.Run("sh", "-c", line)
}

// works pastes the line and requires it to succeed.
func (i *installLab) works(s *lab.System, token string, args ...string) lab.Result {
	i.t.Helper()
	r := i.paste(s, token, args...)
	if r.Code != 0 {
		i.t.Fatalf("%v\n%s", r, s.Run("journalctl", "-u", "weft", "-n", "40", "--no-pager").Out)
	}
	return r
}

// files are all files of a system, except those that change by themselves.
func files(s *lab.System) string {
	return s.Must("sh", "-c", `find / -xdev \( -path /proc -o -path /sys -o -path /dev -o -path /run -o -path /tmp -o -path /var/tmp -o -path /var/log -o -path /var/lib/systemd -o -path '/etc/*-' \) -prune -o -print | sort; cat /etc/group /etc/passwd; systemctl list-unit-files --no-legend 'weft*' || true`)
}

// active requires the service to run, and returns its process id. With an interface it
// runs as root, with few capabilities.
func (i *installLab) active(s *lab.System, tun bool) string {
	i.t.Helper()
	out := s.Must("systemctl", "show", "weft", "-p", "ActiveState,SubState,Type,MainPID,NRestarts,WatchdogUSec,DynamicUser,Result")
	dynamic := "DynamicUser=yes"
	if tun {
		dynamic = "DynamicUser=no"
	}
	for _, want := range []string{"ActiveState=active", "SubState=running", "Type=notify", dynamic, "WatchdogUSec=10min", "NRestarts=0", "Result=success"} {
		if !strings.Contains(out, want+"\n") {
			i.t.Errorf("want %s: %s\n%s", want, out, s.Run("journalctl", "-u", "weft", "-n", "40", "--no-pager").Out)
		}
	}
	_, pid, _ := strings.Cut(out, "MainPID=")
	pid, _, _ = strings.Cut(pid, "\n")
	return pid
}

// fetch requires the machine's page by its name, from the laptop.
func (i *installLab) fetch(name string, limit time.Duration) {
	i.t.Helper()
	start := time.Now()
	for {
		body, err := i.laptop.Get("http://"+name+"/", limit)
		if err == nil && strings.HasPrefix(body, "kitchen GET ") {
			return
		}
		if time.Since(start) > limit {
			i.t.Fatalf("%s is not reached from the laptop within %v: %v %q", name, limit, err, body)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func TestInstall(t *testing.T) {
	i := newInstallLab(t, true)
	s := i.sys
	before := files(s)

	// From the line to the page on the laptop.
	start := time.Now()
	r := i.works(s, i.server.NewKey().Token, "--hostname", "kitchen-pi")
	pasted := time.Since(start)
	i.fetch("kitchen-pi", 20*time.Second)
	t.Logf("from the pasted line to reachable by name: %v, the line itself %v", time.Since(start).Round(time.Millisecond), pasted.Round(time.Millisecond))
	if took := time.Since(start); took > 60*time.Second {
		t.Errorf("that took %v", took)
	}
	if !strings.Contains(r.Out, "kitchen-pi.weft.internal  100.") || !strings.Contains(r.Out, "weft ssh kitchen-pi") || !strings.Contains(r.Err, "weft 1.0.0 for linux/") {
		t.Errorf("%v", r)
	}
	pid := i.active(s, false)
	status := s.ReadFile("/proc/" + pid + "/status")
	for _, want := range []string{"CapEff:\t0000000000000000\n", "CapBnd:\t0000000000000000\n", "NoNewPrivs:\t1\n", "Seccomp:\t2\n"} {
		if !strings.Contains(status, want) {
			t.Errorf("the daemon: want %q in %s", want, status)
		}
	}
	if strings.Contains(status, "\nUid:\t0\t") {
		t.Error("the daemon is root")
	}
	security := strings.TrimSpace(s.Run("systemd-analyze", "security", "--no-pager", "weft.service").Out)
	lines := strings.Split(security, "\n")
	t.Log(lines[len(lines)-1])
	if !strings.Contains(lines[len(lines)-1], " OK ") {
		t.Errorf("systemd-analyze security:\n%s", security)
	}
	if got := s.Must("sha256sum", "/usr/local/bin/weft"); !strings.HasPrefix(got, i.weft) {
		t.Errorf("installed is %s, want %s", got, i.weft)
	}
	id := func() string { return s.Must("weft", "status", "--json") }
	self := func() string { _, v, _ := strings.Cut(id(), `"self"`); return v[:strings.Index(v, `"name"`)] }
	was := self()

	t.Run("a member of the group", func(t *testing.T) {
		s.Must("sh", "-c", "useradd -m anna && useradd -m -G weft berta")
		if r := s.Run("runuser", "-u", "anna", "--", "weft", "status"); r.Code != 6 {
			t.Errorf("somebody: %v", r)
		}
		if r := s.Run("runuser", "-u", "berta", "--", "weft", "status"); r.Code != 0 || !strings.Contains(r.Out, "kitchen-pi") {
			t.Errorf("a member: %v", r)
		}
		s.Must("sh", "-c", "userdel -r anna 2>/dev/null; userdel -r berta 2>/dev/null; true")
	})

	t.Run("killed", func(t *testing.T) {
		s.Must("systemctl", "kill", "-s", "KILL", "weft")
		i.fetch("kitchen-pi", 60*time.Second)
	})

	t.Run("rebooted", func(t *testing.T) {
		s.Reboot()
		start := time.Now()
		i.fetch("kitchen-pi", 60*time.Second)
		t.Logf("reachable %v after the system was up", time.Since(start).Round(time.Millisecond))
		i.active(s, false)
	})

	t.Run("repaired", func(t *testing.T) {
		s.Must("sh", "-c", "rm /etc/systemd/system/weft.service; systemctl daemon-reload; systemctl kill weft; echo broken > /usr/local/bin/weft.new; mv /usr/local/bin/weft.new /usr/local/bin/weft")
		i.works(s, "") // without a token: it has an identity
		i.fetch("kitchen-pi", 30*time.Second)
		i.active(s, false)
	})

	t.Run("upgraded", func(t *testing.T) {
		sum := i.release("1.1.0", i.key)
		r := i.works(s, i.server.NewKey().Token)
		if !strings.Contains(r.Err, "weft 1.1.0 for") {
			t.Errorf("%v", r)
		}
		if got := s.Must("sha256sum", "/usr/local/bin/weft"); !strings.HasPrefix(got, sum) {
			t.Errorf("installed is %s, want %s", got, sum)
		}
		i.fetch("kitchen-pi", 30*time.Second)
		i.active(s, false)
		if now := self(); now != was {
			t.Errorf("another device: %s, was %s", now, was)
		}
	})

	t.Run("signed by another key", func(t *testing.T) {
		i.release("6.6.6", filepath.Join(i.Dir, "thief.key"))
		sum := s.Must("sha256sum", "/usr/local/bin/weft")
		r := i.paste(s, "")
		if r.Code == 0 || !strings.Contains(r.Err, "signed with another key than the one that this device has trusted") || !strings.Contains(r.Err, "release.pub") {
			t.Errorf("%v", r)
		}
		if now := s.Must("sha256sum", "/usr/local/bin/weft"); now != sum {
			t.Error("it was installed nevertheless")
		}
		i.release("1.1.0", i.key)
	})

	t.Run("TUN", func(t *testing.T) {
		i.works(s, "", "--tun", "weft0")
		s.Must("ip", "-4", "addr", "show", "dev", "weft0")
		i.active(s, true)
		s.Must("sh", "-c", `systemctl show weft -p DropInPaths | grep tun.conf`)
		page := i.pi.Listen("0.0.0.0:8090")
		go func() {
			for {
				c, err := page.Accept()
				if err != nil {
					return
				}
				c.Write([]byte("HTTP/1.0 200 OK\r\n\r\nkitchen GET 8090"))
				c.Close()
			}
		}()
		i.fetch("kitchen-pi:8090", 30*time.Second)
		i.works(s, "") // and back to user space: it has no --tun
		if r := s.Run("ip", "link", "show", "dev", "weft0"); r.Code == 0 {
			t.Errorf("the interface is still there: %v", r)
		}
		i.fetch("kitchen-pi", 30*time.Second)
		i.active(s, false)
	})

	t.Run("uninstalled", func(t *testing.T) {
		r := i.paste(s, "", "--uninstall")
		if r.Code != 0 {
			t.Fatalf("%v", r)
		}
		left := added(before, files(s))
		for _, f := range left {
			if !strings.HasPrefix(f, "/var/lib/private") && f != "/var/lib/weft" && !strings.HasPrefix(f, "weft:x:") {
				t.Errorf("left behind: %s", f)
			}
		}
		if !strings.Contains(strings.Join(left, " "), "node.json") {
			t.Errorf("the identity is gone: %v", left)
		}
		// The same device again, also without a token.
		i.works(s, "")
		i.fetch("kitchen-pi", 30*time.Second)
		if now := self(); now != was {
			t.Errorf("another device: %s, was %s", now, was)
		}
	})

	t.Run("purged", func(t *testing.T) {
		r := i.paste(s, "", "--uninstall", "--purge")
		if r.Code != 0 {
			t.Fatalf("%v", r)
		}
		if left := added(before, files(s)); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
		if gone := added(files(s), before); len(gone) > 0 {
			t.Errorf("missing: %v", gone)
		}
		if _, ok := i.server.Device("kitchen-pi"); ok {
			t.Error("the server still has the device")
		}
		r = i.paste(s, "", "--uninstall")
		oneLine(t, r)
	})
}

// added are the lines of b that are not in a.
func added(a, b string) (more []string) {
	have := map[string]bool{}
	for line := range strings.Lines(a) {
		have[line] = true
	}
	for line := range strings.Lines(b) {
		if !have[line] {
			more = append(more, strings.TrimSpace(line))
		}
	}
	return more
}

// An image that is written to two cards makes two devices.
func TestInstallFirstBoot(t *testing.T) {
	t.Parallel()
	i := newInstallLab(t, true)
	r := i.works(i.sys, i.server.NewKey("--reusable", "--tag", "device").Token, "--first-boot")
	if !strings.Contains(r.Out, "joins when it boots for the first time") {
		t.Errorf("%v", r)
	}
	if got := i.sys.Must("sh", "-c", "stat -c %a:%u /etc/weft/token; systemctl is-active weft || true"); got != "600:0\ninactive\n" {
		t.Errorf("before the first boot: %q", got)
	}
	i.sys.Must("rm", "-f", "/etc/hostname")
	i.sys.PowerOff()
	for _, name := range []string{"card-a", "card-b"} {
		h := i.Home(name)
		h.Serve("127.0.0.1:80", lab.Page)
		c := i.sys.Copy(h.Namespace, installPackages...)
		i.Until(60*time.Second, "the copy has joined", func() bool {
			return c.Run("weft", "wait", "--timeout", "1s").Code == 0 && c.Run("test", "-e", "/etc/weft/token").Code != 0
		})
	}
	names := map[string]bool{}
	for _, d := range i.server.Devices() {
		if d.Name != "laptop" {
			names[d.Name] = true
			i.fetch(d.Name, 30*time.Second)
		}
	}
	if len(names) != 2 {
		t.Errorf("devices %v, want two", names)
	}
}
