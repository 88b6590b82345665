//go:build linux && !mips && !mipsle

package osdns

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/godbus/dbus/v5"
)

// busTime bounds one call: a service that hangs counts as absent.
const busTime = time.Second

// startService is the only method whose call may start its service.
const startService = "org.freedesktop.DBus.Peer.Ping"

// property reads one property.
func property(ctx context.Context, c caller, dest, path, iface, name string) (any, error) {
	out, err := c.call(ctx, dest, path, "org.freedesktop.DBus.Properties.Get", iface, name)
	if err != nil {
		return nil, err
	}
	if len(out) == 1 {
		if v, ok := out[0].(dbus.Variant); ok {
			return v.Value(), nil
		}
	}
	return nil, fmt.Errorf("%s.%s: the answer is not a property", iface, name)
}

// errNoBus is the error of calls where there is no D-Bus.
var errNoBus = errors.New("there is no D-Bus")

// bus is the system bus. The first call connects; after the connection breaks, the next
// call connects again.
type bus struct {
	address string // constant

	mu sync.Mutex
	// mu guards the following.
	conn   *dbus.Conn
	tell   func(event) // nil: no listener
	closed bool
	wg     sync.WaitGroup // one per connection
}

func systemBus(root string) *bus {
	return &bus{address: "unix:path=" + at(root, "/run/dbus/system_bus_socket")}
}

// watched are the signals that a connection subscribes to.
var watched = [][]dbus.MatchOption{
	{dbus.WithMatchInterface("org.freedesktop.DBus"), dbus.WithMatchMember("NameOwnerChanged"), dbus.WithMatchArg(0, resolvedName)},
	{dbus.WithMatchInterface("org.freedesktop.DBus"), dbus.WithMatchMember("NameOwnerChanged"), dbus.WithMatchArg(0, nmName)},
	{dbus.WithMatchInterface("org.freedesktop.DBus.Properties"), dbus.WithMatchMember("PropertiesChanged"), dbus.WithMatchObjectPath(resolvedPath)},
}

func (b *bus) connect(ctx context.Context) (*dbus.Conn, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil, errNoBus
	}
	if b.conn != nil && b.conn.Connected() {
		return b.conn, nil
	}
	type dialled struct {
		conn *dbus.Conn
		err  error
	}
	// Connecting takes no context, and a stopped bus would block it.
	result := make(chan dialled, 1)
	go func() {
		c, err := b.dial()
		result <- dialled{c, err}
	}()
	select {
	case <-ctx.Done():
		go func() {
			if d := <-result; d.conn != nil {
				d.conn.Close()
			}
		}()
		return nil, fmt.Errorf("connect to D-Bus: %w", ctx.Err())
	case d := <-result:
		if d.err != nil {
			return nil, fmt.Errorf("%w: %v", errNoBus, d.err)
		}
		b.conn = d.conn
	}
	signals := make(chan *dbus.Signal, 16)
	b.conn.Signal(signals)
	conn := b.conn
	b.wg.Go(func() {
		for s := range signals { // closed with the connection
			b.mu.Lock()
			tell := b.tell
			b.mu.Unlock()
			if tell != nil {
				handleSignal(s, tell)
			}
		}
		b.mu.Lock()
		tell, closed := b.tell, b.closed
		b.mu.Unlock()
		if tell != nil && !closed {
			tell(eventRestart)
		}
		conn.Close()
	})
	return b.conn, nil
}

func (b *bus) dial() (*dbus.Conn, error) {
	c, err := dbus.Connect(b.address)
	if err != nil {
		return nil, err
	}
	for _, m := range watched {
		if err := c.AddMatchSignal(m...); err != nil {
			c.Close()
			return nil, err
		}
	}
	return c, nil
}

// listen makes tell called when a service starts or changes, or the connection breaks.
func (b *bus) listen(tell func(event)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.tell = tell
}

func handleSignal(s *dbus.Signal, tell func(event)) {
	switch {
	case s.Name == "org.freedesktop.DBus.NameOwnerChanged":
		// name, old owner, new owner
		if len(s.Body) == 3 && s.Body[2] != "" {
			tell(eventRestart)
		}
	default:
		tell(eventBase)
	}
}

func (b *bus) close() {
	b.mu.Lock()
	b.closed = true
	conn := b.conn
	b.mu.Unlock()
	if conn != nil {
		conn.Close()
	}
	b.wg.Wait()
}

// call implements caller.
func (b *bus) call(ctx context.Context, dest, path, method string, args ...any) ([]any, error) {
	ctx, cancel := context.WithTimeout(ctx, busTime)
	defer cancel()
	conn, err := b.connect(ctx)
	if err != nil {
		return nil, err
	}
	// The call must not start a service that somebody has stopped.
	flags := dbus.FlagNoAutoStart
	if method == startService {
		flags = 0
	}
	c := conn.Object(dest, dbus.ObjectPath(path)).CallWithContext(ctx, method, flags, args...)
	if c.Err != nil {
		return nil, fmt.Errorf("%s: %w", method[strings.LastIndexByte(method, '.')+1:], c.Err)
	}
	return c.Body, nil
}

// isBusError reports whether err is the D-Bus error of that name.
func isBusError(err error, name string) bool {
	var e dbus.Error
	var p *dbus.Error
	return errors.As(err, &e) && e.Name == name || errors.As(err, &p) && p.Name == name
}

// askServices records in e which services run.
func askServices(ctx context.Context, c caller, first bool, e *evidence) {
	var err error
	if first {
		_, err = c.call(ctx, resolvedName, resolvedPath, startService)
	} else {
		_, err = property(ctx, c, resolvedName, resolvedPath, strings.TrimSuffix(resolvedManager, "."), "LLMNRHostname")
	}
	e.Resolved = err == nil
	if has, err := c.call(ctx, "org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus.NameHasOwner", nmName); err == nil && len(has) == 1 && has[0] == true {
		if v, err := property(ctx, c, nmName, nmPath, nmName, "Version"); err == nil {
			e.NM, _ = v.(string)
		}
		if v, err := property(ctx, c, nmName, nmDNS, nmName+".DnsManager", "Mode"); err == nil {
			e.NMMode, _ = v.(string)
		}
	}
}

// newService is the backend of ModeResolved or ModeNM.
func newService(mode Mode, c caller, iface string, log *slog.Logger) (backend, error) {
	r := newResolved(c, iface, log)
	if mode == ModeNM {
		return &networkManager{bus: c, iface: iface, log: log, sub: r}, nil
	}
	return r, nil
}
