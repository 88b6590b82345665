// Command mknotices writes the notices required by other licences: of Go, and of every
// module linked into the given programs.
//
//	mknotices PROGRAM… >NOTICES
//
// It uses the modules that the linker recorded in the programs, and takes the texts
// from the modules themselves; so it has to run in the module of the programs. The
// output does not depend on the time or place of the build.
package main

import (
	"bytes"
	"debug/buildinfo"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "mknotices:", err)
		os.Exit(1)
	}
}

func run(programs []string, to io.Writer) error {
	linked := map[string]string{} // version by module
	for _, p := range programs {
		info, err := buildinfo.ReadFile(p)
		if err != nil {
			return err
		}
		for _, d := range info.Deps {
			if d.Replace != nil {
				d = d.Replace
			}
			linked[d.Path] = d.Version
		}
	}
	goroot, err := output("go", "env", "GOROOT")
	if err != nil {
		return err
	}
	var b bytes.Buffer
	b.WriteString("weft contains the work of others, under the following terms.\n")
	if err := add(&b, "Go", goroot); err != nil {
		return err
	}
	for _, path := range slices.Sorted(maps.Keys(linked)) {
		dir, err := output("go", "list", "-m", "-f", "{{.Dir}}", path+"@"+linked[path])
		if err != nil {
			return err
		}
		if err := add(&b, path+" "+linked[path], dir); err != nil {
			return err
		}
	}
	_, err = b.WriteTo(to)
	return err
}

// licence matches the names of files with terms.
var licence = regexp.MustCompile(`(?i)^(licen[cs]e|copying|notice|patents)([-._].*)?$`)

// add appends the terms in the root of a module. A module without any is an error:
// somebody has to find out its terms.
func add(b *bytes.Buffer, name, dir string) error {
	entries, err := os.ReadDir(dir) // sorted
	if err != nil {
		return fmt.Errorf("terms of %s: %w", name, err)
	}
	fmt.Fprintf(b, "\n%s\n%s\n", strings.Repeat("=", 76), name)
	n := 0
	for _, e := range entries {
		if !e.Type().IsRegular() || !licence.MatchString(e.Name()) || strings.HasSuffix(e.Name(), ".go") {
			continue
		}
		text, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return fmt.Errorf("terms of %s: %w", name, err)
		}
		fmt.Fprintf(b, "\n%s:\n\n%s\n", e.Name(), bytes.TrimSpace(bytes.ReplaceAll(text, []byte("\r\n"), []byte("\n"))))
		n++
	}
	if n == 0 {
		return fmt.Errorf("%s has no file with its terms in %s", name, dir)
	}
	return nil
}

func output(name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w", name, strings.Join(args, " "), err)
	}
	return strings.TrimSpace(string(out)), nil
}
