//go:build linux

package osdns

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/godbus/dbus/v5"
)

// busTime bounds one call: a service that hangs is a service that is not
// there.
const busTime = time.Second

// caller makes D-Bus calls on the system bus.
type caller interface {
	call(ctx context.Context, dest, path, method string, args ...any) ([]any, error)
}

// startService is the one method that starts the service it is for.
const startService = "org.freedesktop.DBus.Peer.Ping"

// property reads one.
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
	return nil, fmt.Errorf("%s.%s: the answer is no property", iface, name)
}

// errNoBus is what calls return where there is no D-Bus.
var errNoBus = errors.New("there is no D-Bus")

// bus is the system bus, connected at the first call. When the connection
// breaks, the next call makes another.
type bus struct {
	address string // constant

	mu sync.Mutex
	// mu guards the following.
	conn   *dbus.Conn
	signal func(*dbus.Signal) // nil: nobody listens
	closed bool
	wg     sync.WaitGroup // one per connection
}

// watched are the signals that a connection asks for.
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
	// Connecting takes no context: a bus that is stopped would hold us.
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
			f := b.signal
			b.mu.Unlock()
			if f != nil {
				f(s)
			}
		}
		b.mu.Lock()
		f, closed := b.signal, b.closed
		b.mu.Unlock()
		if f != nil && !closed {
			f(nil)
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

// listen has f called for each signal, and with nil when the connection broke.
func (b *bus) listen(f func(*dbus.Signal)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.signal = f
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
	// A service that somebody stops must not be started by our asking.
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
