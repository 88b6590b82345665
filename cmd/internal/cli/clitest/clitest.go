// Package clitest is for tests of the two programs' command lines.
package clitest

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// Verbs returns all that can be asked of a program, by path without its name:
// commands that hold no others, and those that do what their list does. Help and
// completion are cobra's.
func Verbs(root *cobra.Command) map[string]*cobra.Command {
	verbs := map[string]*cobra.Command{}
	var walk func(cmd *cobra.Command)
	walk = func(cmd *cobra.Command) {
		lists := false
		for _, sub := range cmd.Commands() {
			if name := sub.Name(); name != "help" && name != "completion" {
				walk(sub)
				lists = lists || name == "list"
			}
		}
		if cmd != root && (!cmd.HasSubCommands() || lists) {
			verbs[strings.TrimPrefix(cmd.CommandPath(), root.Name()+" ")] = cmd
		}
	}
	walk(root)
	return verbs
}

var schema = regexp.MustCompile(`^\{\s*"schema": ?"([a-z-]+/[0-9]+)"[,}\n]`)

// IsObject checks that out is one JSON object, or one on each line, that first says
// its schema: want, such as "status/1".
func IsObject(t *testing.T, what, out, want string) {
	t.Helper()
	got := ""
	if m := schema.FindStringSubmatch(out); m != nil {
		got = m[1]
	}
	d := json.NewDecoder(strings.NewReader(out))
	for d.More() {
		var v map[string]any
		if err := d.Decode(&v); err != nil || v["schema"] != want || got != want {
			t.Errorf("%s --json: want an object of the schema %s: %v\n%s", what, want, err, out)
			return
		}
	}
	if got == "" {
		t.Errorf("%s --json: want an object of the schema %s:\n%s", what, want, out)
	}
}
