//go:build linux

package osdns

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// resolvconf uses Debian's resolvconf or openresolv, which build resolv.conf from one
// record per interface. The name of our record sorts it before those of ordinary
// interfaces.
//
// A failure in our answer must not make a program ask another resolver, so resolv.conf
// must list no other. openresolv has an option for that (-x). Debian's truncates the
// list after a loopback address, so our record ends with one on which nothing listens.
type resolvconf struct {
	// Constant.
	root  string
	iface string
	open  bool // openresolv
	run   runner
	also  func(path string)
	// undone gets whether the last attempt to remove the record failed.
	undone func(bool)

	c       Config
	content []byte // content of the record
}

// recordPrefix starts the names of our records: both programs sort tun* early.
const recordPrefix = "tun-weft."

// recordDirs are the directories of records, Debian's and openresolv's.
var recordDirs = []string{"/run/resolvconf/interface", "/run/resolvconf/interfaces"}

// unusedLoopback is the unused loopback address in the record for Debian's.
const unusedLoopback = "127.100.100.100"

func (r *resolvconf) dir() string {
	if r.open {
		return at(r.root, recordDirs[1])
	}
	return at(r.root, recordDirs[0])
}

func (r *resolvconf) set(ctx context.Context, c Config) ([]string, error) {
	r.c = c
	r.content = record(c, !r.open)
	args := []string{"-a", recordPrefix + r.iface}
	if r.open {
		args = append([]string{"-m", "0", "-x"}, args...)
	}
	if _, err := r.run(ctx, string(r.content), "resolvconf", args...); err != nil {
		return nil, err
	}
	r.also(r.dir())
	r.also(at(r.root, resolvConfPath))
	if who := r.ahead(); who != "" {
		err := r.unset(ctx)
		if err != nil {
			return nil, err
		}
		return nil, &useDirectError{"resolvconf puts " + who + " before weft, so weft writes /etc/resolv.conf itself"}
	}
	applied := []string{fmt.Sprintf("nameserver %s in resolvconf's record %s, for all names", c.Nameserver, recordPrefix+r.iface)}
	if len(c.Search) > 0 {
		applied = append(applied, searchText(c))
	}
	return applied, nil
}

// record is the content of our record.
func record(c Config, debian bool) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "nameserver %s\n", c.Nameserver)
	if debian {
		fmt.Fprintf(&b, "nameserver %s\n", unusedLoopback)
	}
	if len(c.Search) > 0 {
		fmt.Fprintf(&b, "search %s\n", strings.Join(c.Search, " "))
	}
	return b.Bytes()
}

// ahead names the resolver before or beside ours in resolv.conf, "" if ours is the only
// one.
func (r *resolvconf) ahead() string {
	b, err := readFile(at(r.root, resolvConfPath))
	if err != nil {
		return "an unreadable nameserver"
	}
	f := parseResolvFile(b)
	for _, s := range f.Servers {
		if s.Addr() != r.c.Nameserver && s.Addr().String() != unusedLoopback {
			return serverText(s)
		}
	}
	if len(f.Servers) == 0 || f.Servers[0].Addr() != r.c.Nameserver {
		return "nothing"
	}
	return ""
}

func (r *resolvconf) unset(ctx context.Context) error {
	r.content = nil
	err := dropRecord(ctx, r.run, filepath.Join(r.dir(), recordPrefix+r.iface), r.open)
	r.undone(err != nil)
	return err
}

// dropRecord removes a record. resolvconf first removes it and then rebuilds
// resolv.conf, so if the record is already gone, the rebuild may still be missing.
func dropRecord(ctx context.Context, run runner, path string, open bool) error {
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		return remake(ctx, run)
	}
	args := []string{"-d", filepath.Base(path)}
	if open {
		args = append([]string{"-f"}, args...)
	}
	_, err := run(ctx, "", "resolvconf", args...)
	return err
}

// remake rebuilds resolv.conf from the existing records.
func remake(ctx context.Context, run runner) error {
	_, err := run(ctx, "", "resolvconf", "-u")
	return err
}

// base reads the other records in the order of their names; Debian's also has a file of
// permanent settings.
func (r *resolvconf) base(context.Context) ([]netip.AddrPort, error) {
	names, _ := filepath.Glob(filepath.Join(r.dir(), "*"))
	if !r.open {
		names = append(names, at(r.root, "/etc/resolvconf/resolv.conf.d/base"))
	}
	var out []netip.AddrPort
	for _, name := range names {
		if strings.HasPrefix(filepath.Base(name), recordPrefix) {
			continue
		}
		b, err := readFile(name)
		if err != nil {
			continue
		}
		for _, s := range parseResolvFile(b).Servers {
			if s.Addr() != r.c.Nameserver && !slices.Contains(out, s) && len(out) < maxServers {
				out = append(out, s)
			}
		}
	}
	return out, nil
}

func (r *resolvconf) intact(context.Context) (bool, error) {
	if r.content == nil || r.ahead() != "" {
		return false, nil
	}
	_, err := os.Stat(filepath.Join(r.dir(), recordPrefix+r.iface))
	return err == nil, nil
}

// flush does nothing: libc has no cache.
func (r *resolvconf) flush(context.Context) {}

func (r *resolvconf) close() {}
