//go:build !linux

package osdns

import (
	"context"
	"os/exec"
)

const nonblock = 0

func isLoop(error) bool { return false }

func copyLabel(string, string) {}

func command(ctx context.Context, path string, args []string) *exec.Cmd {
	return exec.CommandContext(ctx, path, args...)
}
