package osdns

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"
)

// runProgram looks for a program in root's directories before it looks in PATH. If the
// program fails, its output is in the error. It ends with ctx and no sooner: a program
// killed midway leaves its work half done.
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
	cmd := command(ctx, path, args)
	cmd.WaitDelay = time.Second
	cmd.Env = append(os.Environ(), "PATH=/usr/sbin:/sbin:/usr/bin:/bin", "LANG=C")
	cmd.Stdin = strings.NewReader(stdin)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("run %s %s: %w: %s", name, strings.Join(args, " "), cmp.Or(ctx.Err(), err), oneLine(strings.TrimSpace(errs.String())))
	}
	return out.String(), nil
}
