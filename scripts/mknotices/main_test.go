package main

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"
)

// TestEveryModuleIsNamed requires the terms of each module that a package of weft or
// weft-server comes from.
func TestEveryModuleIsNamed(t *testing.T) {
	for _, program := range []string{"weft", "weft-server"} {
		file := filepath.Join(t.TempDir(), program)
		if _, err := output("go", "build", "-ldflags=-s -w", "-o", file, "weft/cmd/"+program); err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		if err := run([]string{file}, &b); err != nil {
			t.Fatal(err)
		}
		sections := map[string]string{}
		for _, s := range strings.Split(b.String(), "\n"+strings.Repeat("=", 76)+"\n")[1:] {
			name, text, _ := strings.Cut(s, "\n")
			sections[name] = text
		}
		list, err := output("go", "list", "-deps", "-f", "{{with .Module}}{{if not .Main}}{{.Path}} {{.Version}}{{end}}{{end}}", "weft/cmd/"+program)
		if err != nil {
			t.Fatal(err)
		}
		modules := strings.Fields("Go")
		for _, line := range strings.Split(list, "\n") {
			if line != "" {
				modules = append(modules, line)
			}
		}
		if len(modules) < 10 {
			t.Fatalf("%s is linked from %d modules only: %q", program, len(modules), modules)
		}
		for _, m := range modules {
			if text := strings.ToLower(sections[m]); !strings.Contains(text, "copyright") && !strings.Contains(text, "license") {
				t.Errorf("%s: the terms of %q are missing", program, m)
			}
		}
	}
}
