//go:build !linux && !darwin && !windows

package osdns

import (
	"context"
	"errors"
	"log/slog"
)

// unknown is a system that cannot be told anything.
type unknown struct{}

func newSystem(string, *slog.Logger) system { return unknown{} }

func (unknown) decide(context.Context) (Mode, string, error) {
	return "", "", errors.New("the DNS settings of this operating system cannot be set by weft; point it to the service address, or run with --os-dns=off")
}

func (unknown) backend(Mode, string) (backend, error) { return nil, errors.ErrUnsupported }

func (unknown) watch(func(event)) func() { return func() {} }

func (unknown) restore(context.Context, string) ([]string, error) { return nil, nil }
