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
)

// direct manages /etc/resolv.conf itself. All names then go to us, and we ask the
// resolvers that the file named before.
//
// The file is complete at every moment, either the original or ours, and the backup has
// the original: after a kill at any point restoreFile can restore it. The backup of a
// link is a link, so that it follows changes of its target; the backup of a missing
// file is noFile.
type direct struct {
	// Constant.
	root  string
	iface string
	busy  func(iface string) bool // reports whether a running daemon has the lock
	also  func(path string)       // also watches path

	c       Config
	content []byte // that we wrote
}

// resolvConfPath is the file, backupPaths the places for its backup: the second one is
// for machines where /etc is read-only.
const resolvConfPath = "/etc/resolv.conf"

var backupPaths = []string{"/etc/resolv.conf.before-weft", "/run/weft-resolv.conf.before"}

// noFile is the backup of a missing file.
const noFile = "# weft: there was no resolv.conf\n"

func (d *direct) set(_ context.Context, c Config) ([]string, error) {
	path := at(d.root, resolvConfPath)
	cur, err := readFile(path)
	if err != nil {
		return nil, err
	}
	owner, ours := ownedBy(cur)
	if ours && owner != d.iface {
		if d.busy(owner) {
			return nil, fmt.Errorf("another weft daemon, with the interface %s, already manages %s; stop it, or run this one with --os-dns=off", owner, resolvConfPath)
		}
		if _, err := restoreFile(d.root); err != nil {
			return nil, err
		}
		if cur, err = readFile(path); err != nil {
			return nil, err
		}
		ours = false
	}
	made := ""
	if !ours {
		if made, err = backup(d.root); err != nil {
			return nil, explain(path, err)
		}
	}
	d.c = c
	content := ownFile(d.iface, c, d.before(cur))
	if !bytes.Equal(content, cur) {
		if err := replaceFile(path, content, 0o644); err != nil {
			if made != "" {
				os.Remove(made)
			}
			return nil, explain(path, err)
		}
	}
	d.content = content
	d.also(path)
	if target, err := filepath.EvalSymlinks(firstBackup(d.root)); err == nil {
		d.also(target)
	}
	applied := []string{fmt.Sprintf("nameserver %s in %s, for all names", c.Nameserver, resolvConfPath)}
	if len(c.Search) > 0 {
		applied = append(applied, searchText(c))
	}
	return applied, nil
}

// before returns the original settings, without ours. cur is the current file: it is
// ours if the backup is lost.
func (d *direct) before(cur []byte) resolvFile {
	f := parseResolvFile(original(d.root, cur))
	f.Servers = slices.DeleteFunc(f.Servers, func(s netip.AddrPort) bool { return s.Addr() == d.c.Nameserver })
	return f
}

func (d *direct) unset(context.Context) error {
	path := at(d.root, resolvConfPath)
	cur, err := readFile(path)
	if err != nil {
		return err
	}
	if owner, ours := ownedBy(cur); ours && owner != d.iface {
		return nil
	}
	_, err = restoreFile(d.root)
	d.content = nil
	if err != nil {
		return explain(path, err)
	}
	return nil
}

func (d *direct) base(context.Context) ([]netip.AddrPort, error) {
	cur, err := readFile(at(d.root, resolvConfPath))
	if err != nil {
		return nil, err
	}
	return d.before(cur).Servers, nil
}

func (d *direct) intact(context.Context) (bool, error) {
	cur, err := readFile(at(d.root, resolvConfPath))
	return err == nil && d.content != nil && bytes.Equal(cur, d.content), nil
}

// flush does nothing: libc has no cache.
func (d *direct) flush(context.Context) {}

func (d *direct) close() {}

// original returns the original resolv.conf. cur is its current content.
func original(root string, cur []byte) []byte {
	if _, ours := ownedBy(cur); !ours {
		return cur
	}
	b := firstBackup(root)
	if b == "" {
		return before(cur)
	}
	old, err := readFile(b)
	if _, circle := ownedBy(old); err != nil || circle || string(old) == noFile {
		return nil
	}
	return old
}

// firstBackup is the path of the existing backup, "" if there is none.
func firstBackup(root string) string {
	for _, b := range backupPaths {
		if _, err := os.Lstat(at(root, b)); err == nil {
			return at(root, b)
		}
	}
	return ""
}

// backup saves the file, or the link, and returns where.
func backup(root string) (string, error) {
	path := at(root, resolvConfPath)
	fi, err := os.Lstat(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	var first error
	for _, b := range backupPaths {
		b = at(root, b)
		switch {
		case fi == nil:
			err = writeNew(b, []byte(noFile), 0o644, "")
		case fi.Mode()&fs.ModeSymlink != 0:
			var target string
			if target, err = os.Readlink(path); err == nil {
				if filepath.Dir(b) != filepath.Dir(path) && !filepath.IsAbs(target) {
					target = filepath.Join(filepath.Dir(path), target)
				}
				err = symlinkNew(target, b)
			}
		case !fi.Mode().IsRegular():
			return "", fmt.Errorf("%s is neither a file nor a link", resolvConfPath)
		default:
			var old []byte
			if old, err = readFile(path); err == nil {
				err = writeNew(b, old, fi.Mode().Perm(), path)
			}
		}
		if err == nil {
			return b, nil
		}
		if first == nil {
			first = err
		}
	}
	return "", first
}

// restoreFile restores the original file and removes the backup. It reports whether
// there was anything to do.
func restoreFile(root string) (did bool, err error) {
	path := at(root, resolvConfPath)
	cur, err := readFile(path)
	if err != nil {
		return false, err
	}
	b := firstBackup(root)
	if _, ours := ownedBy(cur); ours {
		did = true
		if err := putBack(path, b, cur); err != nil {
			return false, err
		}
	}
	for _, b := range backupPaths {
		err := os.Remove(at(root, b))
		did = did || err == nil
	}
	temps, _ := filepath.Glob(filepath.Join(filepath.Dir(path), tempPrefix+"*")) // left by a killed daemon
	for _, t := range temps {
		os.Remove(t)
	}
	return did, nil
}

// putBack replaces our file (cur) by the backup b; b is "" if there is none.
func putBack(path, b string, cur []byte) error {
	if b == "" {
		return replaceFile(path, before(cur), 0o644)
	}
	fi, err := os.Lstat(b)
	if err != nil {
		return err
	}
	if fi.Mode()&fs.ModeSymlink != 0 {
		target, err := os.Readlink(b)
		if err != nil {
			return err
		}
		return symlinkNew(target, path)
	}
	old, err := readFile(b)
	if err != nil {
		return err
	}
	if string(old) == noFile {
		return os.Remove(path)
	}
	return replaceFile(path, old, fi.Mode().Perm())
}

// explain says what to do if a file cannot be written.
func explain(path string, err error) error {
	switch {
	case isImmutable(path):
		return fmt.Errorf("%s is immutable and was not changed; to let weft manage it, run: chattr -i %s", resolvConfPath, resolvConfPath)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("write %s: %w; run as root, or with --os-dns=off", resolvConfPath, err)
	}
	return fmt.Errorf("write %s: %w", resolvConfPath, err)
}
