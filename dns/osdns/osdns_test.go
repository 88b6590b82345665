package osdns

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// fakeSystem is a machine in memory.
type fakeSystem struct {
	mu      sync.Mutex
	mode    Mode
	decided error
	setErr  error
	servers []netip.AddrPort
	active  Config
	sets    int
	unsets  int
	flushes int
	modes   []Mode // modes of the backends made
	notify  func(event)
}

func (f *fakeSystem) decide(context.Context) (Mode, string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.mode, "it is " + string(f.mode), f.decided
}

func (f *fakeSystem) backend(m Mode, iface string) (backend, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.modes = append(f.modes, m)
	return &fakeBackend{f: f, mode: m}, nil
}

func (f *fakeSystem) watch(tell func(event)) func() {
	f.notify = tell
	return func() {}
}

func (f *fakeSystem) restore(context.Context, string) ([]string, error) { return nil, nil }

// do changes the machine and reports the event.
func (f *fakeSystem) do(e event, change func()) {
	f.mu.Lock()
	change()
	f.mu.Unlock()
	f.notify(e)
}

type fakeBackend struct {
	f    *fakeSystem
	mode Mode
}

func (b *fakeBackend) set(_ context.Context, c Config) ([]string, error) {
	b.f.mu.Lock()
	defer b.f.mu.Unlock()
	b.f.sets++
	if b.f.setErr != nil && (b.mode != ModeDirect || b.f.mode == ModeDirect) {
		return nil, b.f.setErr
	}
	b.f.active = c
	return []string{"all of it"}, nil
}

func (b *fakeBackend) unset(context.Context) error {
	b.f.mu.Lock()
	defer b.f.mu.Unlock()
	b.f.unsets++
	b.f.active = Config{}
	return nil
}

func (b *fakeBackend) base(context.Context) ([]netip.AddrPort, error) {
	b.f.mu.Lock()
	defer b.f.mu.Unlock()
	return b.f.servers, nil
}

func (b *fakeBackend) intact(context.Context) (bool, error) {
	b.f.mu.Lock()
	defer b.f.mu.Unlock()
	return !b.f.active.IsZero(), nil
}

func (b *fakeBackend) flush(context.Context) {
	b.f.mu.Lock()
	defer b.f.mu.Unlock()
	b.f.flushes++
}

func (b *fakeBackend) close() {}

// health collects warnings.
type health struct {
	mu  sync.Mutex
	now string
}

func (h *health) warn(code, message string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.now = message
}

func (h *health) String() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.now
}

// pause lets time pass, and all work that becomes due.
func pause(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func start(t *testing.T, f *fakeSystem) (*Manager, *health, *int) {
	h, changes := &health{}, new(int)
	m, err := New(Options{Interface: "weft0", Warn: h.warn, BaseChanged: func() { *changes++ }, sys: f})
	if err != nil {
		t.Fatal(err)
	}
	synctest.Wait()
	return m, h, changes
}

func TestManager(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeSystem{mode: ModeResolved, servers: ports("192.168.1.1:53")}
		m, h, changes := start(t, f)
		if f.sets != 0 || m.Status().Mode != ModeOff {
			t.Error("it touches the system before Set")
		}
		// An invalid Config is rejected as a whole.
		if err := m.Set(Config{Nameserver: testConfig.Nameserver, Match: []string{"weft.internal", "../../etc"}}); err == nil {
			t.Error("a path is accepted as a domain")
		}
		for range 3 { // repeated calls set nothing again
			if err := m.Set(testConfig); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		s := m.Status()
		if f.sets != 1 || s.Mode != ModeResolved || s.Reason != "it is systemd-resolved" || len(s.Applied) != 1 || s.Err != nil || !s.Config.equal(testConfig) {
			t.Errorf("%d times, %+v", f.sets, s)
		}
		if base, ok := m.Base(); !ok || !slices.Equal(base, f.servers) || *changes != 1 {
			t.Errorf("base %v %v, %d changes", base, ok, *changes)
		}
		// Another network has other resolvers; a burst of events causes one check.
		for range 40 {
			f.do(eventBase, func() { f.servers = ports("10.0.0.1:53") })
		}
		pause(time.Second)
		if base, _ := m.Base(); !slices.Equal(base, ports("10.0.0.1:53")) || *changes != 2 || f.sets != 1 {
			t.Errorf("base %v, %d changes", base, *changes)
		}
		// The network has no resolver yet: the base is read again.
		f.do(eventBase, func() { f.servers = nil })
		pause(300 * time.Millisecond)
		f.mu.Lock()
		f.servers = ports("10.0.0.2:53")
		f.mu.Unlock()
		pause(5 * time.Second)
		if base, _ := m.Base(); !slices.Equal(base, ports("10.0.0.2:53")) {
			t.Errorf("base %v", base)
		}
		// The service restarts, so the settings are applied again.
		f.do(eventRestart, func() {})
		pause(time.Second)
		if f.sets != 2 || h.String() != "" || m.Status().Tramples != 0 {
			t.Errorf("%d times, %q", f.sets, h)
		}
		// Flush clears the system's cache.
		m.Flush()
		m.Flush()
		pause(time.Second)
		if f.flushes != 1 || f.sets != 2 {
			t.Errorf("flushed %d times, set %d times", f.flushes, f.sets)
		}
		// The zero Config undoes the settings.
		if err := m.Set(Config{}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if s := m.Status(); f.unsets != 1 || s.Mode != ModeOff || len(s.Applied) != 0 {
			t.Errorf("%d times, %+v", f.unsets, s)
		}
		if _, ok := m.Base(); ok {
			t.Error("there are base resolvers although nothing is set")
		}
		m.Set(testConfig)
		synctest.Wait()
		if err := m.Close(); err != nil || f.unsets != 2 || !f.active.IsZero() {
			t.Errorf("close: %v, %d times", err, f.unsets)
		}
		m.Close()
	})
}

// A failure is a warning and is retried at growing intervals.
func TestManagerFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeSystem{mode: ModeDirect, setErr: errors.New("exit status 99\nresolvconf: no"), servers: ports("1.1.1.1:53")}
		m, h, _ := start(t, f)
		defer m.Close()
		if err := m.Set(testConfig); err != nil {
			t.Fatal(err)
		}
		pause(10 * time.Minute)
		if n := f.sets; n < 10 || n > 17 {
			t.Errorf("%d attempts in 10 minutes", n)
		}
		if got := h.String(); got != "exit status 99; resolvconf: no" {
			t.Errorf("warning %q", got)
		}
		if s := m.Status(); s.Err == nil || len(s.Applied) != 0 || s.Mode != ModeDirect {
			t.Errorf("%+v", s)
		}
		f.mu.Lock()
		f.setErr = nil
		f.mu.Unlock()
		pause(2 * time.Minute)
		if s := m.Status(); s.Err != nil || len(s.Applied) == 0 || h.String() != "" {
			t.Errorf("%+v, %q", s, h)
		}
	})
}

// Another writer is overwritten, a bounded number of times.
func TestManagerTrampled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeSystem{mode: ModeDirect, servers: ports("1.1.1.1:53")}
		m, h, _ := start(t, f)
		defer m.Close()
		m.Set(testConfig)
		synctest.Wait()
		for range 3 { // a DHCP client now and then is fine
			f.do(eventFile, func() { f.active = Config{} })
			pause(time.Minute)
			if f.active.IsZero() || h.String() != "" {
				t.Fatalf("not set again: %q", h)
			}
		}
		before := f.sets
		for range 600 { // a program that writes every second for ten minutes
			f.do(eventFile, func() { f.active = Config{} })
			pause(time.Second)
		}
		if n := f.sets - before; n < trampleMost || n > 12*trampleMost {
			t.Errorf("written %d times in ten minutes", n)
		}
		if !strings.Contains(h.String(), "--os-dns=off") || m.Status().Err == nil {
			t.Errorf("warning %q", h)
		}
		// The Manager has given up.
		pause(3 * trampleWindow)
		if f.active.IsZero() || h.String() != "" {
			t.Errorf("not set again: %q", h)
		}
	})
}

// Another program manages DNS from now on: the settings are removed from the last one
// first.
func TestManagerModeChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeSystem{mode: ModeDirect, servers: ports("1.1.1.1:53")}
		m, _, _ := start(t, f)
		defer m.Close()
		m.Set(testConfig)
		synctest.Wait()
		f.do(eventFile, func() { f.mode, f.active = ModeResolved, Config{} })
		pause(time.Second)
		if s := m.Status(); s.Mode != ModeResolved || f.unsets != 1 || !slices.Equal(f.modes, []Mode{ModeDirect, ModeResolved}) {
			t.Errorf("%+v, %v", s, f.modes)
		}
		// systemd-resolved pauses: no file is written.
		f.do(eventRestart, func() { f.mode = ModeDirect })
		pause(1500 * time.Millisecond)
		if s := m.Status(); s.Mode != ModeResolved || s.Err == nil {
			t.Errorf("%+v", s)
		}
		f.mu.Lock()
		f.mode = ModeResolved
		f.mu.Unlock()
		pause(10 * time.Second)
		if s := m.Status(); s.Mode != ModeResolved || s.Err != nil || f.unsets != 1 {
			t.Errorf("%+v", s)
		}
		// It is gone for good.
		f.do(eventRestart, func() { f.mode = ModeDirect })
		pause(time.Minute)
		if s := m.Status(); s.Mode != ModeDirect || s.Err != nil {
			t.Errorf("%+v", s)
		}
	})
}

// If a backend cannot work here, the file is written instead.
func TestManagerUsesDirect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeSystem{mode: ModeResolvconf, setErr: &useDirectError{"resolvconf puts 127.0.0.1 first"}, servers: ports("1.1.1.1:53")}
		m, h, _ := start(t, f)
		defer m.Close()
		m.Set(testConfig)
		synctest.Wait()
		if s := m.Status(); s.Mode != ModeDirect || s.Reason != "resolvconf puts 127.0.0.1 first" || s.Err != nil || h.String() != "" {
			t.Errorf("%+v, %q", s, h)
		}
		n := f.sets
		f.do(eventBase, func() {})
		pause(time.Minute)
		if f.sets != n {
			t.Error("set again without a reason")
		}
	})
}

func TestNewRefuses(t *testing.T) {
	if _, err := New(Options{Interface: "../x"}); err == nil {
		t.Error("a path is accepted as an interface")
	}
}
