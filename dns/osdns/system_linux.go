package osdns

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"weft/overlay/rtnl"
)

// linux is the system of a Linux machine.
type linux struct {
	// Constant.
	root string
	log  *slog.Logger
	bus  caller
	real *bus // the same as bus, nil in tests
	run  runner

	mu sync.Mutex
	// mu guards the following.
	asked   bool // systemd-resolved was asked once
	watcher *watcher
	locks   map[string]*lock
	undone  bool // resolvconf failed to remove a record
}

// caller makes D-Bus calls on the system bus.
type caller interface {
	call(ctx context.Context, dest, path, method string, args ...any) ([]any, error)
}

func newSystem(root string, log *slog.Logger) system {
	b := systemBus(root)
	return &linux{root: root, log: log, bus: b, real: b, run: runProgram}
}

// decide implements system.
func (l *linux) decide(ctx context.Context) (Mode, string, error) {
	e, err := l.collect(ctx)
	if err != nil {
		return "", "", err
	}
	mode, reason := decide(e)
	return mode, reason, nil
}

// collect gathers the evidence. It asks systemd-resolved first: the first call starts
// it, and then it writes its files.
func (l *linux) collect(ctx context.Context) (e evidence, err error) {
	l.mu.Lock()
	first := !l.asked
	l.asked = true
	l.mu.Unlock()
	askServices(ctx, l.bus, first, &e)
	cur, err := readFile(at(l.root, resolvConfPath))
	if err != nil {
		return e, fmt.Errorf("read %s: %w", resolvConfPath, err)
	}
	e.File = original(l.root, cur)
	path := at(l.root, resolvConfPath)
	if _, ours := ownedBy(cur); ours {
		path = firstBackup(l.root)
	}
	if target, err := os.Readlink(path); err == nil {
		e.Link = target
		_, err := os.Stat(path)
		e.Dangling = err != nil
	}
	b, _ := os.ReadFile(at(l.root, "/etc/nsswitch.conf"))
	for line := range strings.Lines(string(b)) {
		if strings.HasPrefix(strings.TrimSpace(line), "hosts:") {
			e.NSSwitch = strings.TrimSpace(line)
		}
	}
	if header(e.File) == "resolvconf" {
		out, _ := l.run(ctx, "", "resolvconf", "--version")
		e.Resolvconf, _, _ = strings.Cut(out, "\n")
	}
	return e, nil
}

// backend implements system.
func (l *linux) backend(mode Mode, iface string) (backend, error) {
	if iface == "" {
		return nil, errors.New("there is no interface")
	}
	l.mu.Lock()
	if l.locks == nil {
		l.locks = map[string]*lock{}
	}
	if l.locks[iface] == nil {
		lk, held := takeLock(l.root, iface)
		if held {
			l.mu.Unlock()
			return nil, fmt.Errorf("another weft daemon manages the DNS of the interface %s", iface)
		}
		l.locks[iface] = lk
	}
	l.mu.Unlock()
	switch mode {
	case ModeResolved, ModeNM:
		return newService(mode, l.bus, iface, l.log)
	case ModeResolvconf, ModeOpenresolv:
		return &resolvconf{root: l.root, iface: iface, open: mode == ModeOpenresolv, run: l.run, also: l.also, undone: l.setUndone}, nil
	case ModeDirect:
		return &direct{root: l.root, iface: iface, busy: func(iface string) bool { return isHeld(l.root, iface) }, also: l.also}, nil
	}
	return nil, fmt.Errorf("there is no mode %q", mode)
}

func (l *linux) setUndone(yes bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.undone = yes
}

// also watches a further file or directory.
func (l *linux) also(path string) {
	l.mu.Lock()
	w := l.watcher
	l.mu.Unlock()
	if w != nil {
		w.add(path)
	}
}

// watch implements system.
func (l *linux) watch(tell func(event)) (stop func()) {
	w, err := newWatcher(tell)
	if err != nil {
		l.log.Info("cannot watch the DNS settings", "err", err)
	} else {
		l.mu.Lock()
		l.watcher = w
		l.mu.Unlock()
	}
	links, err := rtnl.Watch(unix.RTMGRP_LINK|unix.RTMGRP_IPV4_IFADDR|unix.RTMGRP_IPV6_IFADDR, func() { tell(eventBase) })
	if err != nil {
		l.log.Info("cannot watch the network", "err", err)
	}
	if l.real != nil {
		l.real.listen(tell)
	}
	return func() {
		if l.real != nil {
			l.real.close()
		}
		links()
		if w != nil {
			w.close()
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		for _, lk := range l.locks {
			lk.release(!l.undone)
		}
		l.locks, l.watcher = nil, nil
	}
}

// restore implements system. Settings in systemd-resolved and NetworkManager end with
// the interface and need no restore.
func (l *linux) restore(ctx context.Context, iface string) (did []string, err error) {
	if l.real != nil {
		defer l.real.close()
	}
	wait := letsGo
	if iface != "" { // the caller has this interface's lock, or is about to take it
		wait = 0
	}
	patience, done := context.WithTimeout(ctx, wait)
	defer done()
	runs := map[string]bool{} // running daemons, by interface
	free := func(owner string) bool {
		if _, asked := runs[owner]; !asked {
			runs[owner] = !awaitFree(patience, l.root, owner)
		}
		return !runs[owner]
	}
	mine := func(owner string) bool {
		return iface == owner || iface == "" && free(owner)
	}
	defer func() {
		for owner, yes := range runs {
			if yes && iface == "" {
				did = append(did, "left the settings of the daemon of "+owner+": it is running")
			}
		}
	}()
	for i, dir := range recordDirs {
		records, _ := filepath.Glob(filepath.Join(at(l.root, dir), recordPrefix+"*"))
		for _, r := range records {
			owner := strings.TrimPrefix(filepath.Base(r), recordPrefix)
			if !validInterface(owner) || !mine(owner) {
				continue
			}
			derr := dropRecord(ctx, l.run, r, i == 1)
			if errors.Is(derr, exec.ErrNotFound) {
				derr = os.Remove(r) // resolvconf was uninstalled meanwhile
			}
			if derr == nil {
				did = append(did, "removed the record "+filepath.Base(r)+" from resolvconf")
			}
			err = errors.Join(err, derr)
		}
	}
	cur, rerr := readFile(at(l.root, resolvConfPath))
	if rerr != nil && !errors.Is(rerr, fs.ErrNotExist) {
		return did, errors.Join(err, rerr)
	}
	var stale []string // locks of daemons that were killed
	locks, _ := filepath.Glob(lockPath(l.root, "*"))
	for _, p := range locks {
		if free(strings.TrimSuffix(strings.TrimPrefix(filepath.Base(p), "weft-dns-"), ".lock")) {
			stale = append(stale, p)
		}
	}
	if len(stale) > 0 && len(did) == 0 && err == nil && header(cur) == "resolvconf" {
		// Another process may have removed the record and ended before resolv.conf was
		// rebuilt.
		if err = remake(ctx, l.run); errors.Is(err, exec.ErrNotFound) {
			err = nil
		}
	}
	owner, ours := ownedBy(cur)
	if ours && !mine(owner) {
		return did, err
	}
	changed, rerr := restoreFile(l.root)
	if rerr != nil {
		return did, errors.Join(err, explain(at(l.root, resolvConfPath), rerr))
	}
	if changed && ours {
		did = append(did, "restored "+resolvConfPath)
	}
	if err == nil { // otherwise they tell the next Restore that there is more to do
		for _, p := range stale {
			os.Remove(p)
		}
	}
	return slices.Clip(did), err
}
