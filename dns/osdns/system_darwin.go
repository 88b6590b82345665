package osdns

import (
	"context"
	"fmt"
	"log/slog"
	"time"
)

// darwin is the system of a Mac.
type darwin struct{ root string }

func newSystem(root string, _ *slog.Logger) system { return darwin{root} }

func (darwin) decide(context.Context) (Mode, string, error) {
	return ModeMacOS, "macOS has resolvers per domain: /etc/resolver", nil
}

func (d darwin) backend(_ Mode, iface string) (backend, error) {
	return &macos{root: d.root, iface: iface, run: runProgram}, nil
}

// watch checks the network every half minute: the notifications of System Configuration
// need cgo.
func (darwin) watch(tell func(event)) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(30 * time.Second)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				tell(eventBase)
			}
		}
	}()
	return func() { cancel(); <-done }
}

func (d darwin) restore(ctx context.Context, iface string) ([]string, error) {
	m := &macos{root: d.root, iface: iface, run: runProgram}
	n, err := m.remove(func(owner, _ string) bool { return iface == "" || owner == iface })
	if n == 0 || err != nil {
		return nil, err
	}
	_, err = m.run(ctx, macScript(Config{}), "scutil")
	m.flush(ctx)
	return []string{fmt.Sprintf("removed %d files from %s", n, macDir)}, err
}
