// Package fipstest runs tests in FIPS mode, which a process cannot enter later.
//
// Not for embedders: it is for weft's own tests.
package fipstest

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"weft/overlay/fips"
)

// Only reports whether this process enforces FIPS mode. If not, it runs the test alone in
// one that does, fails if that fails, and returns false: the caller returns.
func Only(t *testing.T) bool {
	t.Helper()
	if fips.Current() == fips.Only {
		return true
	}
	var path []string
	for _, name := range strings.Split(t.Name(), "/") {
		path = append(path, "^"+regexp.QuoteMeta(name)+"$")
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run="+strings.Join(path, "/"), "-test.v")
	cmd.Env = append(os.Environ(), "GODEBUG=fips140=only")
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Errorf("with GODEBUG=fips140=only: %v\n%s", err, out)
	}
	return false
}
