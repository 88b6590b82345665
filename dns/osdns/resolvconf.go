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

// resolvconf tells Debian's resolvconf or openresolv, which make resolv.conf
// of what each interface's record says. The record's name sorts it before
// those of ordinary interfaces.
//
// Names must not go to others when our answer is a failure, so no other
// resolver may stand beside us: openresolv has a switch for that (-x). Debian's
// cuts the list behind a loopback address, so our record ends with one that
// nobody listens on.
type resolvconf struct {
	// Constant.
	root  string
	iface string
	open  bool // openresolv
	run   runner
	also  func(path string)
	// undone is told whether the last attempt to take the record back failed.
	undone func(bool)

	c       Config
	content []byte // of the record
}

// recordPrefix begins the names of our records: tun* sorts early for both.
const recordPrefix = "tun-weft."

// recordDirs are where the records are kept, Debian's and openresolv's.
var recordDirs = []string{"/run/resolvconf/interface", "/run/resolvconf/interfaces"}

// nobody is the loopback address in Debian's record.
const nobody = "127.100.100.100"

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
		return nil, &useDirectError{"resolvconf puts " + who + " before weft, so /etc/resolv.conf is written without it"}
	}
	applied := []string{fmt.Sprintf("nameserver %s in resolvconf's record %s, for all names", c.Nameserver, recordPrefix+r.iface)}
	if len(c.Search) > 0 {
		applied = append(applied, searchText(c))
	}
	return applied, nil
}

// record is what resolvconf is told.
func record(c Config, debian bool) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "nameserver %s\n", c.Nameserver)
	if debian {
		fmt.Fprintf(&b, "nameserver %s\n", nobody)
	}
	if len(c.Search) > 0 {
		fmt.Fprintf(&b, "search %s\n", strings.Join(c.Search, " "))
	}
	return b.Bytes()
}

// ahead names the resolver that stands before or beside us in resolv.conf, ""
// if we are alone.
func (r *resolvconf) ahead() string {
	b, err := readFile(at(r.root, resolvConfPath))
	if err != nil {
		return "something unreadable"
	}
	f := parseResolvFile(b)
	for _, s := range f.Servers {
		if s.Addr() != r.c.Nameserver && s.Addr().String() != nobody {
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

// dropRecord takes a record back. That removes it first and then makes
// resolv.conf anew, so where it is gone the latter may still be to do.
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

// remake has resolv.conf made of the records that there are.
func remake(ctx context.Context, run runner) error {
	_, err := run(ctx, "", "resolvconf", "-u")
	return err
}

// base reads the other records, in the order of their names; Debian's has a
// file for what is always there, too.
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

// flush has nothing to do: libc remembers nothing.
func (r *resolvconf) flush(context.Context) {}

func (r *resolvconf) close() {}
