// Package report is the result of a doctor, in the same form for a node
// (overlay/doctor) and a server (coord/doctor), and has the facts that both gather in the
// same way: facts.go and disk_unix.go.
//
// Not for embedders: the command lines share it.
package report

import (
	"fmt"
	"slices"
	"sort"
)

// Level is how bad a finding is.
type Level string

// The levels, from bad to good.
const (
	Error   Level = "error"   // it does not work
	Warning Level = "warning" // it works, but not well or not for long
	OK      Level = "ok"      // checked, no problem
)

// Finding is the result of one check.
type Finding struct {
	Code    string `json:"code"` // what was checked, in one word
	Level   Level  `json:"level"`
	Message string `json:"message"` // what, and why: one line
	Cure    string `json:"cure"`    // the command or action that fixes it, "" if there is no problem
}

// Findings are the results of all checks.
type Findings []Finding

// Add adds a finding; format and args are those of fmt.Sprintf.
func (f *Findings) Add(code string, level Level, cure, format string, args ...any) {
	*f = append(*f, Finding{Code: code, Level: level, Message: fmt.Sprintf(format, args...), Cure: cure})
}

// Sort sorts by level, the worst first; the order within a level stays.
func (f Findings) Sort() {
	levels := []Level{Error, Warning, OK}
	sort.SliceStable(f, func(i, j int) bool {
		return slices.Index(levels, f[i].Level) < slices.Index(levels, f[j].Level)
	})
}

// Broken reports whether something does not work.
func (f Findings) Broken() bool {
	return slices.ContainsFunc(f, func(f Finding) bool { return f.Level == Error })
}
