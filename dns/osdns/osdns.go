// Package osdns makes weft's resolver the operating system's resolver for overlay
// names, so that they resolve in every program of the machine.
//
// A Manager gets the desired state (Config) and applies it through the program that
// manages DNS on this machine. It finds that program by evidence:
//
//	osdns.go         Config, Mode, Status; Manager: Set, Status, Base, Close; Restore
//	owner.go         the goroutine that owns the system's settings
//	domains.go       the names that a Config may contain, reverse zones
//	decide.go        evidence in, Mode and reason out (pure)
//	system_linux.go  collects the evidence, makes the backends, restores
//	resolved.go      systemd-resolved, over D-Bus (bus.go; nobus.go on routers)
//	resolvconf.go    Debian's resolvconf and openresolv
//	nm.go            NetworkManager, where it needs the settings itself
//	direct.go        /etc/resolv.conf itself: backup, atomic write, restore (file.go)
//	resolvfile.go    parses and writes a resolv.conf, and finds its author (pure)
//	watch_linux.go   watches other writers of that file, and the network
//	macos.go         files of /etc/resolver
//	nrpt.go          the name resolution policy table of Windows
//
// Nothing touches the system before the first Set. Close restores the original
// settings; Restore does that for a Manager whose process was killed. A failure is a
// warning (Options.Warn) and is retried: it never stops the daemon.
package osdns

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

// Config is the complete desired state. The zero Config means no settings of weft.
type Config struct {
	// Nameserver is the address of our resolver, which listens on port 53.
	Nameserver netip.Addr
	// Search holds the domains to try for short names, ours first. The system's own
	// come after them.
	Search []string
	// SearchLast puts the system's own search domains before ours.
	SearchLast bool
	// Match holds the domains whose names go to Nameserver: the overlay's zone, its
	// reverse zones, split routes.
	Match []string
	// Default sends all other names to Nameserver, too. Where the system cannot
	// distinguish names, they go there in any case.
	Default bool
}

// IsZero reports whether there is nothing to set.
func (c Config) IsZero() bool { return !c.Nameserver.IsValid() }

func (c Config) equal(o Config) bool {
	return c.Nameserver == o.Nameserver && slices.Equal(c.Search, o.Search) && c.SearchLast == o.SearchLast &&
		slices.Equal(c.Match, o.Match) && c.Default == o.Default
}

// Mode is the program or method that manages the system's DNS.
type Mode string

// The modes.
const (
	ModeOff        Mode = "off"
	ModeResolved   Mode = "systemd-resolved"
	ModeNM         Mode = "NetworkManager"
	ModeResolvconf Mode = "resolvconf" // Debian's
	ModeOpenresolv Mode = "openresolv"
	ModeDirect     Mode = "direct" // /etc/resolv.conf
	ModeMacOS      Mode = "macos"
	ModeWindows    Mode = "windows"
)

// Status is what was found and set, and why.
type Status struct {
	Mode   Mode
	Reason string // why this mode, for people
	// Config is the last one given to Set.
	Config Config
	// Applied describes the settings, one line each; it is empty if nothing is set.
	Applied []string
	// Base are the machine's own resolvers, without ours.
	Base []netip.AddrPort
	// Tramples counts how often another program overwrote our settings.
	Tramples int
	// Err is why the last attempt failed, or nil.
	Err error
}

// Options are constant after New. Interface is required where there is one.
type Options struct {
	// Interface is the tunnel's name.
	Interface string
	// Warn sets a health warning; an empty message clears it.
	Warn func(code, message string)
	// Prepare makes Config.Nameserver answer and may be repeated. It is called from the
	// Manager's goroutine before each look at the system, also after a change of the
	// network. While it fails, nothing is set.
	Prepare func() error
	// BaseChanged is called from the Manager's goroutine when Base has changed: cached
	// answers may be from another network.
	BaseChanged func()
	// Log gets events; nil discards them.
	Log *slog.Logger

	// Root is the root of the system's files, "/" if empty.
	Root string
	// sys replaces the system in tests.
	sys system
}

// system is the machine as the Manager sees it; newSystem makes the real one.
type system interface {
	// decide collects the evidence and chooses the mode.
	decide(ctx context.Context) (mode Mode, reason string, err error)
	// backend makes the backend for a mode. It changes nothing yet.
	backend(mode Mode, iface string) (backend, error)
	// watch reports changes until stop is called, which waits for the last report.
	watch(tell func(event)) (stop func())
	// restore undoes what killed processes have left.
	restore(ctx context.Context, iface string) (did []string, err error)
}

// warnCode is the code of the health warning.
const warnCode = "os-dns"

// backend is one way to set the system's DNS. Its methods are called from the Manager's
// goroutine, one at a time.
type backend interface {
	// set applies c and may be repeated; applied describes the result.
	set(ctx context.Context, c Config) (applied []string, err error)
	// unset undoes everything and may be repeated.
	unset(ctx context.Context) error
	// base returns the machine's own resolvers, without ours.
	base(ctx context.Context) ([]netip.AddrPort, error)
	// intact reports whether our settings are still in place. An error means that the
	// service did not answer, not that the settings changed.
	intact(ctx context.Context) (bool, error)
	// flush clears the system's cache of names.
	flush(ctx context.Context)
	// close releases the backend's resources and changes nothing.
	close()
}

// event is a change of the system's DNS.
type event int

const (
	eventBase    event = iota // the base resolvers may have changed
	eventFile                 // a file that we manage was written
	eventRestart              // the service with our settings has started or restarted
	eventFlush                // cached names are out of date
	events
)

// Manager owns the system's settings for one interface. Its methods may be called from
// any goroutine.
type Manager struct {
	// Constant after New.
	opt    Options
	log    *slog.Logger
	sys    system
	wake   chan struct{} // desired changed
	events chan event
	cancel context.CancelFunc
	done   chan struct{}

	mu sync.Mutex
	// mu guards the following.
	desired Config
	status  Status
	set     bool // Set was called
}

// New returns a Manager that has not touched the system yet.
func New(opt Options) (*Manager, error) {
	if opt.Interface != "" && !validInterface(opt.Interface) {
		return nil, fmt.Errorf("interface %q: not a valid interface name", opt.Interface)
	}
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	if opt.Warn == nil {
		opt.Warn = func(string, string) {}
	}
	if opt.Prepare == nil {
		opt.Prepare = func() error { return nil }
	}
	if opt.BaseChanged == nil {
		opt.BaseChanged = func() {}
	}
	opt.Root = cmp.Or(opt.Root, "/")
	m := &Manager{
		opt: opt, log: opt.Log, sys: opt.sys,
		wake: make(chan struct{}, 1), events: make(chan event, 16), done: make(chan struct{}),
		status: Status{Mode: ModeOff, Reason: "nothing is set yet"},
	}
	if m.sys == nil {
		m.sys = newSystem(opt.Root, m.log)
	}
	var ctx context.Context
	ctx, m.cancel = context.WithCancel(context.Background())
	go m.ownLoop(ctx)
	return m, nil
}

// Set makes c the desired state and returns at once; Status tells the result. Repeating
// it is cheap. An error means that c itself is invalid, for example a domain in it;
// nothing has changed then.
func (m *Manager) Set(c Config) error {
	if err := c.check(); err != nil {
		return err
	}
	c = c.clone()
	m.mu.Lock()
	same := m.set && m.desired.equal(c)
	m.desired, m.set = c, true
	m.mu.Unlock()
	if !same {
		m.poke()
	}
	return nil
}

func (m *Manager) poke() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// tell hands an event to the owner goroutine. If the queue is full, it already holds a
// reason to check.
func (m *Manager) tell(e event) {
	select {
	case m.events <- e:
	default:
	}
}

// Status returns what was found and set, and why.
func (m *Manager) Status() Status {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.status
	s.Config = m.desired.clone()
	s.Applied = slices.Clone(s.Applied)
	s.Base = slices.Clone(s.Base)
	return s
}

// Base returns the machine's own resolvers, never our address. It does not block. ok is
// false while nothing is set: then the system's files are right.
func (m *Manager) Base() (servers []netip.AddrPort, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.status.Base, len(m.status.Applied) > 0
}

// Flush clears the system's cache of names, if it has one and something is set, after a
// name has changed its meaning. It returns at once.
func (m *Manager) Flush() { m.tell(eventFlush) }

// Close restores the system's settings and waits for that, a few seconds at most. It is
// idempotent.
func (m *Manager) Close() error {
	m.cancel()
	<-m.done
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.status.Err
}

// Restore restores what killed processes have left: files and records that carry weft's
// name. iface "" means every interface. It returns a line for each action, and leaves
// the settings of running processes alone.
func Restore(ctx context.Context, root, iface string) (did []string, err error) {
	return newSystem(cmp.Or(root, "/"), slog.New(slog.DiscardHandler)).restore(ctx, iface)
}

// runner runs a program until it ends; stdin may be "".
type runner func(ctx context.Context, stdin, name string, args ...string) (stdout string, err error)

// validInterface accepts the kernel's interface names, except those with a special
// meaning in shells and file names.
func validInterface(s string) bool {
	if len(s) == 0 || len(s) > 63 || s[0] == '.' || s[0] == '-' {
		return false
	}
	for _, c := range []byte(s) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '.', c == '-', c == '_':
		default:
			return false
		}
	}
	return true
}

// oneLine puts an error on one line.
func oneLine(s string) string {
	return strings.Join(strings.FieldsFunc(s, func(r rune) bool { return r == '\n' || r == '\r' }), "; ")
}

// at is a file of the system, below root.
func at(root, path string) string { return filepath.Join(root, path) }
