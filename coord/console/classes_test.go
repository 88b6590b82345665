package console_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Every class that the style sheets name is one that a template, a script or the console
// itself gives to something: a rule nobody uses is one that everybody has to read.
func TestStyleNamesOnlyClassesInUse(t *testing.T) {
	read := func(pattern string) string {
		names, err := fs.Glob(os.DirFS("."), pattern)
		if err != nil || len(names) == 0 {
			t.Fatalf("%s: %d files, %v", pattern, len(names), err)
		}
		var all strings.Builder
		for _, name := range names {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			b, err := os.ReadFile(filepath.FromSlash(name))
			if err != nil {
				t.Fatal(err)
			}
			all.Write(b)
		}
		return all.String()
	}
	used := map[string]bool{}
	words := regexp.MustCompile(`[a-zA-Z][\w-]*`)
	take := func(text, pattern string) {
		for _, m := range regexp.MustCompile(pattern).FindAllString(text, -1) {
			for _, w := range words.FindAllString(m, -1) {
				used[w] = true
			}
		}
	}
	templates := read("templates/*.html")
	take(templates, `class="(\{\{.*?\}\}|[^"{])*"`)
	take(templates, `\(status "[^"]*"|\{\{template "(status|thread)" "[^"]*"`)
	take(read("static/script/*.js")+read("static/passkey.js"), "\"[^\"\n]*\"|`[^`]*`")
	take(read("*.go"), `"[a-z-]+"|class="[^"]*"`) // kinds of status, steps and paths

	css := regexp.MustCompile(`(?s)/\*.*?\*/|"[^"]*"`).ReplaceAllString(read("static/style/*.css"), "")
	for _, selector := range regexp.MustCompile(`[^{}]+\{`).FindAllString(css, -1) {
		for _, m := range regexp.MustCompile(`\.([a-zA-Z][\w-]*)`).FindAllStringSubmatch(selector, -1) {
			if !used[m[1]] {
				t.Errorf("no template, script or Go file gives the class %s: %s", m[1], strings.Join(strings.Fields(selector), " "))
				used[m[1]] = true // said once
			}
		}
	}
}
