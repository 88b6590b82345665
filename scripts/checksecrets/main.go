// Command checksecrets checks one rule in the source: secrets are compared in constant
// time (crypto/subtle) or looked up by their hash, never with == or bytes.Equal, whose
// duration tells how many bytes were right.
//
//	go run ./scripts/checksecrets      (scripts/test static)
//
// It works by names: it reports a comparison of two expressions, neither of them
// constant, one of which is called secret, token, password, cookie, mac or psk.
package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

var secret = regexp.MustCompile(`(?i)(secret|token|password|cookie|^mac|mac$|psk)`)

func main() {
	bad := 0
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "node_modules" || strings.HasPrefix(d.Name(), ".") && path != "."):
			return filepath.SkipDir
		case !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go"):
			return nil
		}
		set := token.NewFileSet()
		file, err := parser.ParseFile(set, path, nil, 0)
		if err != nil {
			return err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if compares(n) {
				fmt.Fprintf(os.Stderr, "%s: a secret is compared in a time that depends on it; use subtle.ConstantTimeCompare\n", set.Position(n.Pos()))
				bad++
			}
			return true
		})
		return nil
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, "checksecrets:", err)
		os.Exit(2)
	}
	if bad > 0 {
		os.Exit(1)
	}
}

// compares reports whether n compares two secrets byte by byte.
func compares(n ast.Node) bool {
	var x, y ast.Expr
	switch n := n.(type) {
	case *ast.BinaryExpr:
		if n.Op != token.EQL && n.Op != token.NEQ {
			return false
		}
		x, y = n.X, n.Y
	case *ast.CallExpr:
		f, ok := n.Fun.(*ast.SelectorExpr)
		if !ok || len(n.Args) != 2 || f.Sel.Name != "Equal" && f.Sel.Name != "Compare" && f.Sel.Name != "EqualFold" {
			return false
		}
		if pkg, ok := f.X.(*ast.Ident); !ok || pkg.Name != "bytes" && pkg.Name != "slices" && pkg.Name != "strings" {
			return false
		}
		x, y = n.Args[0], n.Args[1]
	default:
		return false
	}
	return !constant(x) && !constant(y) && (secret.MatchString(name(x)) || secret.MatchString(name(y)))
}

// constant reports whether e is a literal, nil, a length, or an identifier that is a
// constant by its form (tokenPrefix, true).
func constant(e ast.Expr) bool {
	switch e := e.(type) {
	case *ast.BasicLit, *ast.CompositeLit:
		return true
	case *ast.Ident:
		return e.Name == "nil" || e.Name == "true" || e.Name == "false" || e.Obj != nil && e.Obj.Kind == ast.Con
	case *ast.CallExpr:
		f, ok := e.Fun.(*ast.Ident)
		return ok && f.Name == "len"
	case *ast.ParenExpr:
		return constant(e.X)
	}
	return false
}

// name is the name of an expression.
func name(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name
	case *ast.SelectorExpr:
		return e.Sel.Name
	case *ast.IndexExpr:
		return name(e.X)
	case *ast.SliceExpr:
		return name(e.X)
	case *ast.StarExpr:
		return name(e.X)
	case *ast.ParenExpr:
		return name(e.X)
	case *ast.CallExpr:
		if len(e.Args) == 1 { // a conversion
			return name(e.Args[0])
		}
		return name(e.Fun)
	}
	return ""
}
