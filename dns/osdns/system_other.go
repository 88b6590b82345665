//go:build !linux && !darwin && !windows

package osdns

import (
	"context"
	"errors"
	"log/slog"
)

// unknown is a system whose DNS weft cannot set.
type unknown struct{}

func newSystem(string, *slog.Logger) system { return unknown{} }

func (unknown) decide(context.Context) (Mode, string, error) {
	return "", "", errors.New("weft cannot set the DNS of this operating system; configure the service address yourself, or run with --os-dns=off")
}

func (unknown) backend(Mode, string) (backend, error) { return nil, errors.ErrUnsupported }

func (unknown) watch(func(event)) func() { return func() {} }

func (unknown) restore(context.Context, string) ([]string, error) { return nil, nil }
