package osdns

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"
)

// runProgram looks where root's programs are before it looks in PATH, and
// makes what a program says when it fails the error.
func runProgram(ctx context.Context, stdin, name string, args ...string) (string, error) {
	path := ""
	for _, dir := range []string{"/usr/sbin/", "/sbin/", "/usr/bin/", "/bin/", "/usr/local/sbin/"} {
		if fi, err := os.Stat(dir + name); err == nil && fi.Mode()&0o111 != 0 {
			path = dir + name
			break
		}
	}
	if path == "" {
		var err error
		if path, err = exec.LookPath(name); err != nil {
			return "", fmt.Errorf("run %s: %w", name, exec.ErrNotFound)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.WaitDelay = time.Second
	cmd.Env = append(os.Environ(), "PATH=/usr/sbin:/sbin:/usr/bin:/bin", "LANG=C")
	cmd.Stdin = strings.NewReader(stdin)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("run %s %s: %w: %s", name, strings.Join(args, " "), err, oneLine(strings.TrimSpace(errs.String())))
	}
	return out.String(), nil
}
