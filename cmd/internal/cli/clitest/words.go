package clitest

import (
	"regexp"
	"slices"
	"strings"
)

var (
	raw   = regexp.MustCompile(`strconv\.|invalid syntax|invalid character|invalid argument|unmarshal|EOF|\b(open|mkdir|l?stat|rename) [^ ]+: (no such|not a d|is a d|perm|read-only|file exists)|\b(dial|listen) (tcp|udp|unix)|connect: |bind: |parse "`)
	parts = regexp.MustCompile(`[:;] `)
)

// Raw reports whether a line for people is in the words of Go's own errors, or says the
// same twice.
func Raw(line string) bool {
	said := parts.Split(strings.TrimSpace(line), -1)
	slices.Sort(said)
	return raw.MatchString(line) || len(slices.Compact(slices.Clone(said))) < len(said)
}
