//go:build linux && (mips || mipsle)

package osdns

import (
	"context"
	"errors"
	"log/slog"
)

// Linux on these processors is routers, with neither systemd nor
// NetworkManager: D-Bus is left out, and its 0.3 MB of flash.

var errNoBus = errors.New("this program is without D-Bus")

type bus struct{}

func systemBus(string) *bus { return &bus{} }

func (*bus) call(context.Context, string, string, string, ...any) ([]any, error) {
	return nil, errNoBus
}

func (*bus) listen(func(event)) {}
func (*bus) close()             {}

func askServices(context.Context, caller, bool, *evidence) {}

func newService(Mode, caller, string, *slog.Logger) (backend, error) { return nil, errNoBus }
