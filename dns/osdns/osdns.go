// Package osdns makes weft's resolver part of the operating system: names of
// the overlay then resolve in every program of the machine.
//
// A Manager is told the state to have (Config) and makes it so, through
// whatever looks after DNS on this machine. Which that is follows from
// evidence, not from preference:
//
//	osdns.go         Manager: Set, Status, Base, Close; the goroutine that owns it all
//	domains.go       which names a Config may hold, reverse zones
//	decide.go        evidence in, Mode and reason out: pure
//	system_linux.go  collects the evidence, makes the backends, restores
//	resolved.go      systemd-resolved, over D-Bus (bus.go; nobus.go on routers)
//	resolvconf.go    Debian's resolvconf and openresolv
//	nm.go            NetworkManager, where it alone can be told
//	direct.go        /etc/resolv.conf itself: backup, atomic write, restore (file.go)
//	resolvfile.go    what is in a resolv.conf, and whose it is: pure
//	watch_linux.go   who else writes that file, and the network's changes
//	macos.go         files of /etc/resolver
//	nrpt.go          the name resolution policy table of Windows
//
// Nothing here touches the system before the first Set. Close puts it back as
// it was; Restore does that for a Manager whose process is gone. A failure is
// a warning (Options.Warn) and is tried again: it never stops the daemon.
package osdns

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// Config is the state to have, as a whole. The zero Config is "nothing of
// weft's in the system".
type Config struct {
	// Nameserver is where our resolver listens, on port 53.
	Nameserver netip.Addr
	// Search holds the domains that short names are tried in, ours first.
	// The system's own come after them.
	Search []string
	// SearchLast puts the system's own before ours.
	SearchLast bool
	// Match holds the domains whose names go to Nameserver: the overlay's
	// zone, its reverse zones, split routes.
	Match []string
	// Default says that all other names go there, too. Where the system
	// cannot tell names apart they do in any case.
	Default bool
}

// IsZero reports whether there is nothing to set.
func (c Config) IsZero() bool { return !c.Nameserver.IsValid() }

func (c Config) equal(o Config) bool {
	return c.Nameserver == o.Nameserver && slices.Equal(c.Search, o.Search) && c.SearchLast == o.SearchLast &&
		slices.Equal(c.Match, o.Match) && c.Default == o.Default
}

// Mode is who looks after the system's DNS.
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

// Status is what was found, what was set, and why.
type Status struct {
	Mode   Mode
	Reason string // why this mode, in words
	// Config is what was asked for last.
	Config Config
	// Applied says what was set, a line each; empty when nothing is.
	Applied []string
	// Base are the resolvers that the machine has without us.
	Base []netip.AddrPort
	// Tramples counts how often somebody else wrote over our settings.
	Tramples int
	// Err is why the last attempt failed, nil when all is well.
	Err error
}

// Options are constant after New. Interface is required where there is one.
type Options struct {
	// Interface is the tunnel's name.
	Interface string
	// Warn sets or, with message "", takes back a health warning.
	Warn func(code, message string)
	// Prepare makes Config.Nameserver answer, repeatably: it is called (from
	// the Manager's goroutine) each time before the system is looked at, also
	// when the network has changed. While it fails nothing is set.
	Prepare func() error
	// BaseChanged is called (from the Manager's goroutine) when Base has
	// changed: cached answers may be another network's.
	BaseChanged func()
	// Log gets what happens; nil discards it.
	Log *slog.Logger

	// Root is where the system's files are, "/" if empty.
	Root string
	// sys replaces the system in tests.
	sys system
}

// system is the machine as the Manager sees it; newSystem makes the real one.
type system interface {
	// decide collects the evidence and names the mode.
	decide(ctx context.Context) (mode Mode, reason string, err error)
	// backend makes the one for a mode. It changes nothing yet.
	backend(mode Mode, iface string) (backend, error)
	// watch tells about changes until stop, which waits.
	watch(tell func(event)) (stop func())
	// restore takes back what processes that are gone have left.
	restore(ctx context.Context, iface string) (did []string, err error)
}

// warnCode is the health warning's.
const warnCode = "os-dns"

// backend is one way to tell the system. Its methods are called from the
// Manager's goroutine, one at a time.
type backend interface {
	// set makes c so, repeatably; applied says what that was.
	set(ctx context.Context, c Config) (applied []string, err error)
	// unset takes everything back, repeatably.
	unset(ctx context.Context) error
	// base returns the resolvers that the machine has without us.
	base(ctx context.Context) ([]netip.AddrPort, error)
	// intact reports whether what was set still stands. An error says that
	// nobody answers, rather than that somebody has changed it.
	intact(ctx context.Context) (bool, error)
	// flush has the system forget what names were.
	flush(ctx context.Context)
	// close releases what the backend holds and changes nothing.
	close()
}

// event is something that happened to the system's DNS.
type event int

const (
	eventBase    event = iota // the base resolvers may be others now
	eventFile                 // a file that we look after was written
	eventRestart              // the service that we tell has started (again)
	eventFlush                // names mean something else now
	events
)

// Manager owns the system's settings for one interface. Its methods may be
// called from any goroutine.
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

// New returns a Manager that has touched nothing yet.
func New(opt Options) (*Manager, error) {
	if opt.Interface != "" && !validInterface(opt.Interface) {
		return nil, fmt.Errorf("interface %q: not a name for an interface", opt.Interface)
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
		status: Status{Mode: ModeOff, Reason: "nothing was asked for yet"},
	}
	if m.sys == nil {
		m.sys = newSystem(opt.Root, m.log)
	}
	var ctx context.Context
	ctx, m.cancel = context.WithCancel(context.Background())
	go m.ownLoop(ctx)
	return m, nil
}

// Set makes c the state to have and returns at once; Status tells what came of
// it. Repeating it is cheap. The error is about c itself: a domain that is
// none, say. Nothing has changed then.
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

// tell hands an event to the owner. A full queue holds enough reasons to look.
func (m *Manager) tell(e event) {
	select {
	case m.events <- e:
	default:
	}
}

// Status returns what was found, set and why.
func (m *Manager) Status() Status {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.status
	s.Config = m.desired.clone()
	s.Applied = slices.Clone(s.Applied)
	s.Base = slices.Clone(s.Base)
	return s
}

// Base returns the resolvers that the machine has without us, never our own
// address. It does not block. ok is false as long as nothing is set: the
// system's files are what it goes by then.
func (m *Manager) Base() (servers []netip.AddrPort, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.status.Base, len(m.status.Applied) > 0
}

// Flush has the system forget what names were, if it remembers any and
// something is set: one of them means something else now. It returns at once.
func (m *Manager) Flush() { m.tell(eventFlush) }

// Close puts the system back as it was and waits for that, a few seconds at
// most. It is idempotent.
func (m *Manager) Close() error {
	m.cancel()
	<-m.done
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.status.Err
}

// Bounds of the owner's patience.
const (
	// settles is how long the system is left alone after something changed:
	// changes come in bursts.
	settles = 200 * time.Millisecond
	// retryFirst and retryMost bound the wait before a failed round is
	// repeated.
	retryFirst = time.Second
	retryMost  = time.Minute
	// Who writes over us more often than trampleMost times in trampleWindow
	// has won until the window is over.
	trampleMost   = 8
	trampleWindow = time.Minute
	// patience is how many rounds a service that was there may be away.
	patience = 3
	// callTime bounds one round, and each attempt to put things back.
	callTime = 10 * time.Second
)

// owner is what only the owning goroutine knows.
type owner struct {
	m        *Manager
	mode     Mode
	backend  backend
	reason   string
	current  Config // what the backend was told, if told
	told     bool
	applied  []string // by that
	retry    time.Duration
	warned   string      // the warning that stands
	tramples []time.Time // within the window
	total    int
	misses   int // times in a row that systemd-resolved was not there any more
	emptied  int // times in a row that there was no base resolver
}

// ownLoop is the one goroutine that touches the system.
func (m *Manager) ownLoop(ctx context.Context) {
	defer close(m.done)
	o := &owner{m: m}
	stop := m.sys.watch(m.tell)
	defer stop()
	timer := time.NewTimer(time.Hour)
	timer.Stop()
	defer timer.Stop()
	for {
		var seen [events]bool
		select {
		case <-ctx.Done():
			o.end()
			return
		case <-m.wake:
		case <-timer.C:
		case e := <-m.events:
			seen[e] = true
			// The rest of the burst.
			select {
			case <-ctx.Done():
			case <-time.After(settles):
			}
			for len(m.events) > 0 {
				seen[<-m.events] = true
			}
		}
		timer.Stop()
		if ctx.Err() != nil {
			continue
		}
		if again := o.round(ctx, seen); again > 0 {
			timer.Reset(again)
		}
	}
}

// round makes the state so. It returns when to come again, 0 for when
// something happens.
func (o *owner) round(parent context.Context, seen [events]bool) (again time.Duration) {
	ctx, cancel := context.WithTimeout(parent, callTime)
	defer cancel()
	m := o.m
	m.mu.Lock()
	want, asked := m.desired, m.set
	m.mu.Unlock()
	if !asked {
		return 0
	}
	if want.IsZero() {
		err := o.drop(ctx)
		o.publish(nil, nil, err)
		return o.backoff(err)
	}
	if err := m.opt.Prepare(); err != nil {
		// A resolver that does not answer is worse than none of ours.
		err = errors.Join(err, o.drop(ctx))
		o.publish(nil, nil, err)
		return o.backoff(err)
	}
	if o.told && !seen[eventRestart] && o.current.equal(want) {
		stands, err := o.backend.intact(ctx)
		if stands {
			if seen[eventFlush] {
				o.backend.flush(ctx)
			}
			return o.refresh(ctx)
		}
		if err == nil && o.trampled() {
			o.publish([]string{}, nil, fmt.Errorf("another program keeps writing over the DNS settings (%d times in %v), so they are left alone; find it, or run weft with --os-dns=off", trampleMost, trampleWindow))
			return trampleWindow
		}
		m.log.Info("the system's DNS settings do not stand any more", "mode", o.mode, "err", err)
	}
	if err := o.apply(ctx, want); err != nil {
		o.told = false
		o.publish(nil, nil, err)
		return o.backoff(err)
	}
	return o.refresh(ctx)
}

// apply chooses the backend anew and tells it.
func (o *owner) apply(ctx context.Context, want Config) error {
	mode, reason, err := o.m.sys.decide(ctx)
	if err != nil {
		return err
	}
	if o.mode == ModeResolved && mode != ModeResolved {
		// It may be starting again, or D-Bus is: files are not written for
		// a pause of seconds.
		if o.misses++; o.misses <= patience {
			return errors.New("systemd-resolved does not answer")
		}
	}
	o.misses = 0
	for {
		if o.backend != nil && mode != o.mode {
			o.m.log.Info("another program looks after DNS now", "was", o.mode, "is", mode)
			if err := o.drop(ctx); err != nil {
				return err
			}
		}
		if o.backend == nil {
			b, err := o.m.sys.backend(mode, o.m.opt.Interface)
			if err != nil {
				return err
			}
			o.backend, o.mode = b, mode
		}
		o.reason = reason
		applied, err := o.backend.set(ctx, want)
		var no *useDirectError
		if errors.As(err, &no) && mode != ModeDirect {
			mode, reason = ModeDirect, no.Error()
			continue
		}
		if err != nil {
			return err
		}
		o.told, o.current, o.applied = true, want, applied
		o.m.log.Info("the system's DNS is set", "mode", mode, "why", reason)
		return nil
	}
}

// useDirectError is what a backend returns that cannot do what it is for here:
// the file itself is written then.
type useDirectError struct{ why string }

func (e *useDirectError) Error() string { return e.why }

// trampled counts, and reports whether it is too often.
func (o *owner) trampled() bool {
	now := time.Now()
	o.total++
	o.tramples = append(slices.DeleteFunc(o.tramples, func(t time.Time) bool { return now.Sub(t) > trampleWindow }), now)
	if len(o.tramples) > trampleMost {
		o.tramples = o.tramples[1:]
		return true
	}
	return false
}

// refresh reads the base resolvers again.
func (o *owner) refresh(ctx context.Context) time.Duration {
	base, err := o.backend.base(ctx)
	o.publish(o.applied, base, err)
	if err != nil {
		o.told = false // who does not answer may have forgotten, too
		return o.backoff(err)
	}
	o.retry = 0
	return o.whenEmpty(base)
}

// whenEmpty looks again a few times while there is no base resolver: a network
// that has just come up has none for a moment.
func (o *owner) whenEmpty(base []netip.AddrPort) time.Duration {
	if len(base) > 0 {
		o.emptied = 0
		return 0
	}
	if o.emptied++; o.emptied > 5 {
		return 0
	}
	return time.Second << (o.emptied - 1)
}

func (o *owner) backoff(err error) time.Duration {
	if err == nil {
		o.retry = 0
		return 0
	}
	o.retry = min(max(2*o.retry, retryFirst), retryMost)
	return o.retry
}

// publish makes the round's outcome the Status and the health warning.
func (o *owner) publish(applied []string, base []netip.AddrPort, err error) {
	m := o.m
	m.mu.Lock()
	m.status.Mode, m.status.Reason = cmp.Or(o.mode, ModeOff), o.reason
	if o.backend == nil && m.desired.IsZero() {
		m.status.Mode, m.status.Reason = ModeOff, "nothing is to be set"
	}
	m.status.Applied, m.status.Err, m.status.Tramples = applied, err, o.total
	changed := !slices.Equal(m.status.Base, base) && base != nil
	if base != nil || len(applied) == 0 {
		m.status.Base = base
	}
	m.mu.Unlock()
	text := ""
	if err != nil {
		text = oneLine(err.Error())
	}
	if text != o.warned { // and not each minute
		if text != "" {
			m.log.Warn("the system's DNS", "mode", o.mode, "err", text)
		}
		m.opt.Warn(warnCode, text)
		o.warned = text
	}
	if changed {
		m.opt.BaseChanged()
	}
}

// drop takes back what the backend set and lets go of it.
func (o *owner) drop(ctx context.Context) error {
	if o.backend == nil {
		return nil
	}
	if err := o.backend.unset(ctx); err != nil {
		return fmt.Errorf("put the system's DNS back: %w", err)
	}
	o.backend.close()
	o.backend, o.mode, o.reason, o.told, o.current = nil, "", "", false, Config{}
	o.applied = nil
	return nil
}

// end is the last round: with time of its own, since the context is over.
func (o *owner) end() {
	ctx, cancel := context.WithTimeout(context.Background(), callTime)
	defer cancel()
	err := o.drop(ctx)
	if o.backend != nil {
		o.backend.close()
	}
	if err == nil {
		o.m.mu.Lock()
		o.m.status = Status{Mode: ModeOff, Reason: "closed"}
		o.m.mu.Unlock()
		return
	}
	o.publish(nil, nil, err)
}

// Restore puts back what a process that is gone has left: files and records
// that carry weft's name. iface "" is every interface's. It says what it did,
// a line each, and leaves alone what belongs to a process that runs.
func Restore(ctx context.Context, root, iface string) (did []string, err error) {
	return newSystem(cmp.Or(root, "/"), slog.New(slog.DiscardHandler)).restore(ctx, iface)
}

// runner runs a program to its end; stdin may be "".
type runner func(ctx context.Context, stdin, name string, args ...string) (stdout string, err error)

// validInterface accepts what the kernel does, less what has a meaning in
// shells and file names.
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

// oneLine keeps an error on one line.
func oneLine(s string) string {
	return strings.Join(strings.FieldsFunc(s, func(r rune) bool { return r == '\n' || r == '\r' }), "; ")
}

// at is a file of the system below root.
func at(root, path string) string { return filepath.Join(root, path) }
