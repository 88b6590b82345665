package main

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"weft/cmd/internal/cli/clitest"
)

// Whatever wrong input a verb gets, it prints one line, without Go's own error texts
// and without repetition, and returns an exit code of the contract.
func TestWordsOfMistakes(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	t.Setenv("HOME", dir)
	t.Setenv("XDG_RUNTIME_DIR", dir)
	t.Setenv("XDG_STATE_HOME", dir)
	t.Setenv("WEFT_SOCKET", filepath.Join(dir, "none"))
	if err := os.WriteFile("file", []byte("\x00\xff not a token\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir("dir", 0o700); err != nil {
		t.Fatal(err)
	}
	values := []string{"", "ü", "x", "-1", "99999", "1.2.3.4:80", "300.1.1.1/99", "https://[::1", "dir", "file", "file/x", "dir/none/x", strings.Repeat("a", 300)}
	runs := 0
	try := func(args ...string) {
		var out, errs bytes.Buffer
		code := run(args, strings.NewReader(""), &out, &errs)
		runs++
		said := strings.Split(strings.TrimSuffix(errs.String(), "\n"), "\n")
		last := said[len(said)-1]
		if !slices.Contains([]int{0, 1, 2, 3, 4, 5, 6, 7}, code) || code > 1 && !strings.HasPrefix(last, "weft: ") {
			t.Errorf("%q: exit %d\n%s%s", args, code, &out, &errs)
		}
		for _, line := range append(said, strings.Split(out.String(), "\n")...) {
			if len(args) > 0 && args[0] != "completion" && clitest.Raw(line) {
				t.Errorf("%q: %s", args, line)
			}
		}
	}
	var walk func(cmd *cobra.Command, path []string)
	walk = func(cmd *cobra.Command, path []string) {
		for _, c := range cmd.Commands() {
			walk(c, append(slices.Clone(path), c.Name()))
		}
		switch strings.Join(path, " ") {
		case "install", "uninstall", "dns restore": // would change this machine
			return
		}
		var never []string // flags that keep the daemon from starting, or a verb from waiting
		switch {
		case cmd.Name() == "run":
			never = []string{"--state", "file/x"}
		case cmd.Name() == "wait":
			never = []string{"--timeout", "1ms"}
		}
		with := func(args ...string) {
			if cmd.Name() == "run" && len(args) > 1 && args[0] == "--socket" && args[1] == "" {
				return // the machine's own socket: its directory would be made
			}
			try(slices.Concat(path, args, never)...)
		}
		with()
		for _, v := range values {
			with("--", v)
			with("--", v, v)
			with("--socket", v)
		}
		cmd.Flags().VisitAll(func(f *pflag.Flag) {
			if f.Value.Type() == "bool" || f.Name == "help" {
				return
			}
			for _, v := range values {
				arg := "kitchen-pi"
				if cmd.Name() == "forward" {
					arg = "0:kitchen-pi:80"
				}
				with("--"+f.Name, v)
				with("--"+f.Name, v, arg)
			}
		})
	}
	root := newRoot()
	walk(root, nil)
	if runs < 500 {
		t.Errorf("%d runs", runs)
	}
}
