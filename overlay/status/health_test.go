package status

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// Every named code has a row, and every row a name: the word is stable, and its meaning
// was thought about.
func TestCodesHaveMeanings(t *testing.T) {
	f, err := parser.ParseFile(token.NewFileSet(), "health.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	named := map[Code]bool{}
	for _, d := range f.Decls {
		g, ok := d.(*ast.GenDecl)
		if !ok || g.Tok != token.CONST {
			continue
		}
		for _, s := range g.Specs {
			v := s.(*ast.ValueSpec)
			if typ, ok := v.Type.(*ast.Ident); !ok || typ.Name != "Code" {
				continue
			}
			word, err := strconv.Unquote(v.Values[0].(*ast.BasicLit).Value)
			if err != nil {
				t.Fatal(err)
			}
			if named[Code(word)] {
				t.Errorf("%s has two names", word)
			}
			if !regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)*$`).MatchString(word) {
				t.Errorf("%q is not a word", word)
			}
			named[Code(word)] = true
		}
	}
	if rows := slices.Sorted(maps.Keys(meanings)); !slices.Equal(rows, slices.Sorted(maps.Keys(named))) || len(rows) < 30 {
		t.Errorf("rows of %v, names of %v", rows, slices.Sorted(maps.Keys(named)))
	}
}

func TestCodeOf(t *testing.T) {
	c := CodeInboundPortTaken.Of("8080")
	if code, of := c.Cut(); code != CodeInboundPortTaken || of != "8080" || c.Meaning() != CodeInboundPortTaken.Meaning() {
		t.Errorf("%s is %s of %q, %+v", c, code, of, c.Meaning())
	}
	if code, of := CodeClock.Cut(); code != CodeClock || of != "" {
		t.Errorf("%s of %q", code, of)
	}
	if m := Code("of-a-later-version").Meaning(); m != (Meaning{}) {
		t.Errorf("a code of a later version means %+v", m)
	}
}

// A package that sets a health warning by its word, because it imports no package of
// overlay, uses a word of the table. All other code uses the name.
func TestHealthCodesAreOfTheTable(t *testing.T) {
	word := regexp.MustCompile(`(?:\bHealth\{|\bCode: +|const warnCode = )"([a-z0-9:-]+)"`)
	call := regexp.MustCompile(`\b(?:health|node|Node|Load\(\)|cfg)\.(?:Set|Clear|Has|Warn)\("`)
	found := 0
	for _, dir := range []string{"../../cmd/weft", "../../overlay", "../../netstack", "../../dns"} {
		filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			src, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			alone := strings.HasPrefix(path, "../../dns") || strings.HasPrefix(path, "../../netstack")
			for _, m := range word.FindAllStringSubmatch(string(src), -1) {
				found++
				code, _ := Code(m[1]).Cut()
				if _, ok := meanings[code]; !ok {
					t.Errorf("%s uses %q, which is not in the table of health.go", path, m[1])
				}
				if !alone {
					t.Errorf("%s uses %q; use its name in health.go", path, m[1])
				}
			}
			for _, m := range call.FindAllString(string(src), -1) {
				t.Errorf("%s: %s…: use the name in health.go", path, m)
			}
			return nil
		})
	}
	if found < 5 {
		t.Errorf("%d words found", found)
	}
}

// No listed warning has a cure in which PORT is not filled in.
func TestCuresOfListedWarnings(t *testing.T) {
	var w Warnings
	for code := range meanings {
		w.Set(code.Of("8080"), "message")
	}
	listed := w.List()
	if len(listed) != len(meanings) {
		t.Fatalf("%d listed", len(listed))
	}
	for _, h := range listed {
		if strings.Contains(h.Cure(), "PORT") {
			t.Errorf("%s: %s", h.Code, h.Cure())
		}
	}
	if got := (Health{Code: CodeInboundPortTaken, Of: "80"}).Cure(); !strings.Contains(got, "port 80,") {
		t.Errorf("%s", got)
	}
	for _, code := range []Code{CodeProxyPortTaken, CodeDNSPortTaken} { // there is one, with a default
		if got := (Health{Code: code}).Cure(); strings.Contains(got, "PORT") {
			t.Errorf("%s: %s", code, got)
		}
	}
}
