//go:build linux

package osdns

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// machine is a root directory with an /etc and a /run.
type machine struct {
	t    *testing.T
	root string
}

func newMachine(t *testing.T) machine {
	t.Helper()
	m := machine{t, t.TempDir()}
	for _, dir := range []string{"etc", "run"} {
		if err := os.Mkdir(filepath.Join(m.root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return m
}

func (m machine) path(name string) string { return filepath.Join(m.root, name) }

func (m machine) write(name, content string) {
	m.t.Helper()
	if err := os.MkdirAll(filepath.Dir(m.path(name)), 0o755); err != nil {
		m.t.Fatal(err)
	}
	if err := os.WriteFile(m.path(name), []byte(content), 0o644); err != nil {
		m.t.Fatal(err)
	}
}

func (m machine) read(name string) string {
	b, err := os.ReadFile(m.path(name))
	if err != nil {
		return ""
	}
	return string(b)
}

// state is the relevant part of /etc: each entry with its content or target.
func (m machine) state() string {
	m.t.Helper()
	var s []string
	for _, dir := range []string{"etc", "run"} {
		list, err := os.ReadDir(m.path(dir))
		if err != nil {
			m.t.Fatal(err)
		}
		for _, e := range list {
			p := filepath.Join(dir, e.Name())
			if target, err := os.Readlink(m.path(p)); err == nil {
				s = append(s, p+" -> "+target)
			} else if e.Type().IsRegular() && !strings.HasSuffix(p, ".lock") {
				fi, _ := e.Info()
				s = append(s, p+" "+fi.Mode().String()+" "+m.read(p))
			}
		}
	}
	return strings.Join(s, "\n")
}

func (m machine) direct(iface string) *direct {
	return &direct{root: m.root, iface: iface, busy: func(i string) bool { return isHeld(m.root, i) }, also: func(string) {}}
}

// Whatever resolv.conf was, it becomes ours, its resolvers are used, and it is restored
// unchanged: by unset, and by Restore after a kill.
func TestDirect(t *testing.T) {
	ctx := context.Background()
	for name, c := range map[string]struct {
		make func(m machine)
		base string
		line string // expected in our file
	}{
		"a file": {func(m machine) {
			m.write("etc/resolv.conf", "search lan\nnameserver 192.168.1.1 # router\noptions ndots:2\n")
			os.Chmod(m.path("etc/resolv.conf"), 0o600)
		}, "192.168.1.1:53", "search weft.internal lan"},
		"an empty file": {func(m machine) { m.write("etc/resolv.conf", "") }, "", "search weft.internal"},
		"a link": {func(m machine) {
			m.write("run/dhcp/resolv.conf", "nameserver 10.0.0.1\nnameserver 10.0.0.2\n")
			os.Symlink("../run/dhcp/resolv.conf", m.path("etc/resolv.conf"))
		}, "10.0.0.1:53 10.0.0.2:53", "nameserver 100.100.100.100"},
		"a dangling link":  {func(m machine) { os.Symlink("../run/nowhere", m.path("etc/resolv.conf")) }, "", "nameserver 100.100.100.100"},
		"a link to itself": {func(m machine) { os.Symlink("resolv.conf", m.path("etc/resolv.conf")) }, "", "nameserver 100.100.100.100"},
		"nothing":          {func(machine) {}, "", "nameserver 100.100.100.100"},
		"a file with our address": {func(m machine) {
			m.write("etc/resolv.conf", "nameserver 100.100.100.100\nnameserver 9.9.9.9\n")
		}, "9.9.9.9:53", "nameserver 100.100.100.100"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, killed := range []bool{false, true} {
				m := newMachine(t)
				c.make(m)
				was := m.state()
				d := m.direct("weft0")
				applied, err := d.set(ctx, testConfig)
				if err != nil || len(applied) == 0 {
					t.Fatalf("set: %v, %v", applied, err)
				}
				now := m.read("etc/resolv.conf")
				if owner, ours := ownedBy([]byte(now)); !ours || owner != "weft0" || !strings.Contains(now, c.line+"\n") || strings.Count(now, "\nnameserver ") != 1 {
					t.Fatalf("resolv.conf is\n%s", now)
				}
				base, err := d.base(ctx)
				if want := ports(strings.Fields(c.base)...); err != nil || !slices.Equal(base, want) {
					t.Errorf("base %v, %v, want %v", base, err, want)
				}
				if !stands(d) {
					t.Error("not intact")
				}
				// Setting again changes nothing.
				is := m.state()
				if _, err := d.set(ctx, testConfig); err != nil || m.state() != is {
					t.Errorf("set again: %v", err)
				}
				if killed {
					// A half-written file of a killed daemon is there, too.
					m.write("etc/.weft-123", "nameser")
					did, err := Restore(ctx, m.root, "")
					if err != nil || len(did) != 1 {
						t.Errorf("restore: %q, %v", did, err)
					}
				} else if err := d.unset(ctx); err != nil {
					t.Errorf("unset: %v", err)
				}
				if got := m.state(); got != was {
					t.Errorf("killed %v: was\n%s\nis\n%s", killed, was, got)
				}
				// A second restore does nothing.
				if did, err := Restore(ctx, m.root, ""); err != nil || len(did) != 0 || m.state() != was {
					t.Errorf("second restore: %q, %v", did, err)
				}
			}
		})
	}
}

// A kill between any two steps of set leaves a complete resolv.conf, which Restore can
// restore.
func TestDirectKilledBetween(t *testing.T) {
	ctx := context.Background()
	m := newMachine(t)
	m.write("etc/resolv.conf", "nameserver 192.168.1.1\n")
	was := m.state()
	// After the backup.
	if _, err := backup(m.root); err != nil {
		t.Fatal(err)
	}
	if did, err := Restore(ctx, m.root, "weft0"); err != nil || m.state() != was {
		t.Errorf("%q, %v: %s", did, err, m.state())
	}
	// A kill during the restore: the file is restored, the backup still exists.
	if _, err := backup(m.root); err != nil {
		t.Fatal(err)
	}
	m.write("etc/resolv.conf", "nameserver 192.168.1.9\n") // and another program has written since
	if _, err := Restore(ctx, m.root, ""); err != nil || m.read("etc/resolv.conf") != "nameserver 192.168.1.9\n" || firstBackup(m.root) != "" {
		t.Errorf("%v: %s", err, m.state())
	}
	// The backup is lost: our file contains the original settings.
	d := m.direct("weft0")
	if _, err := d.set(ctx, testConfig); err != nil {
		t.Fatal(err)
	}
	os.Remove(firstBackup(m.root))
	if base, err := d.base(ctx); err != nil || !slices.Equal(base, ports("192.168.1.9:53")) {
		t.Errorf("base %v, %v", base, err)
	}
	if _, err := Restore(ctx, m.root, ""); err != nil || m.read("etc/resolv.conf") != "nameserver 192.168.1.9\n" {
		t.Errorf("%v: %s", err, m.state())
	}
}

// Another program writes the file: that is the original from then on.
func TestDirectTrampled(t *testing.T) {
	ctx := context.Background()
	m := newMachine(t)
	m.write("etc/resolv.conf", "nameserver 192.168.1.1\n")
	d := m.direct("weft0")
	if _, err := d.set(ctx, testConfig); err != nil {
		t.Fatal(err)
	}
	m.write("etc/resolv.conf", "nameserver 10.9.9.9\n")
	if stands(d) {
		t.Error("not noticed")
	}
	if _, err := d.set(ctx, testConfig); err != nil {
		t.Fatal(err)
	}
	if base, _ := d.base(ctx); !slices.Equal(base, ports("10.9.9.9:53")) {
		t.Errorf("base %v", base)
	}
	// Our file with an additional line is still ours.
	m.write("etc/resolv.conf", m.read("etc/resolv.conf")+"nameserver 6.6.6.6\n")
	if stands(d) {
		t.Error("not noticed")
	}
	if _, err := d.set(ctx, testConfig); err != nil || strings.Contains(m.read("etc/resolv.conf"), "6.6.6.6") {
		t.Errorf("%v: %s", err, m.read("etc/resolv.conf"))
	}
	if err := d.unset(ctx); err != nil || m.read("etc/resolv.conf") != "nameserver 10.9.9.9\n" {
		t.Errorf("%v: %s", err, m.state())
	}
	// The other program's last change is kept, too.
	d.set(ctx, testConfig)
	m.write("etc/resolv.conf", "nameserver 10.8.8.8\n")
	if err := d.unset(ctx); err != nil || m.read("etc/resolv.conf") != "nameserver 10.8.8.8\n" || firstBackup(m.root) != "" {
		t.Errorf("%v: %s", err, m.state())
	}
}

// Two daemons on one machine: the file belongs to one of them while that one runs.
func TestDirectTwoDaemons(t *testing.T) {
	ctx := context.Background()
	m := newMachine(t)
	m.write("etc/resolv.conf", "nameserver 192.168.1.1\n")
	first, held := takeLock(m.root, "weft0")
	if held {
		t.Fatal("the lock is taken")
	}
	if _, err := m.direct("weft0").set(ctx, testConfig); err != nil {
		t.Fatal(err)
	}
	is := m.read("etc/resolv.conf")
	if _, err := m.direct("weft1").set(ctx, testConfig); err == nil || !strings.Contains(err.Error(), "weft0") || !strings.Contains(err.Error(), "--os-dns=off") {
		t.Errorf("the second: %v", err)
	}
	if err := m.direct("weft1").unset(ctx); err != nil {
		t.Error(err)
	}
	// Restore does not remove a running daemon's settings.
	if did, err := Restore(ctx, m.root, ""); err != nil || len(did) != 1 || !strings.Contains(did[0], "daemon of weft0") || m.read("etc/resolv.conf") != is {
		t.Errorf("restore: %q, %v", did, err)
	}
	// A program that a killed daemon was starting keeps the lock for a moment longer.
	time.AfterFunc(50*time.Millisecond, func() { first.release(true) })
	if did, err := Restore(ctx, m.root, ""); err != nil || len(did) != 1 || m.read("etc/resolv.conf") != "nameserver 192.168.1.1\n" {
		t.Errorf("restore: %q, %v", did, err)
	}
	if _, err := m.direct("weft1").set(ctx, testConfig); err != nil {
		t.Fatal(err)
	}
	if base, _ := m.direct("weft1").base(ctx); !slices.Equal(base, ports("192.168.1.1:53")) {
		t.Errorf("base %v", base)
	}
	if _, err := Restore(ctx, m.root, ""); err != nil || m.read("etc/resolv.conf") != "nameserver 192.168.1.1\n" {
		t.Errorf("%v: %s", err, m.state())
	}
}

// A file that cannot be written is reported, and nothing is left behind.
func TestDirectRefused(t *testing.T) {
	ctx := context.Background()
	m := newMachine(t)
	os.Mkdir(m.path("etc/resolv.conf"), 0o755)
	was := m.state()
	if _, err := m.direct("weft0").set(ctx, testConfig); err == nil {
		t.Error("a directory was written")
	}
	if m.state() != was {
		t.Errorf("left: %s", m.state())
	}
	m = newMachine(t)
	m.write("etc/resolv.conf", strings.Repeat("#", maxFile+1))
	if _, err := m.direct("weft0").set(ctx, testConfig); err == nil {
		t.Error("an endless file was read")
	}
}

// The evidence comes from the machine's own files, also while ours is in place.
func TestCollect(t *testing.T) {
	ctx := context.Background()
	m := newMachine(t)
	m.write("etc/nsswitch.conf", "passwd: files\nhosts:          files dns\n")
	m.write("run/resolvconf/resolv.conf", string(fixture(t, "resolvconf-resolv.conf")))
	os.Symlink("../run/resolvconf/resolv.conf", m.path("etc/resolv.conf"))
	l := &linux{root: m.root, log: slog.New(slog.DiscardHandler), bus: systemBus(m.root), run: func(_ context.Context, _, name string, args ...string) (string, error) {
		return "Debian resolvconf 1.91+nmu1\nCopyright:\n", nil
	}}
	for range 2 {
		e, err := l.collect(ctx)
		if err != nil || header(e.File) != "resolvconf" || e.Link != "../run/resolvconf/resolv.conf" || e.Dangling || e.NSSwitch != "hosts:          files dns" || e.Resolvconf != "Debian resolvconf 1.91+nmu1" || e.Resolved || e.NM != "" {
			t.Errorf("%+v, %v", e, err)
		}
		if _, err := m.direct("weft0").set(ctx, testConfig); err != nil {
			t.Fatal(err)
		}
	}
}
