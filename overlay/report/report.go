// Package report is what a doctor finds: of a node (overlay/doctor) and of a
// server (coord/doctor) in the same words.
//
// Not for embedders: it is what the command lines share.
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
	Warning Level = "warning" // it works, and will not for long, or not well
	OK      Level = "ok"      // looked at, nothing found
)

// Finding is one thing that was looked at.
type Finding struct {
	Code    string `json:"code"` // what was looked at, in one word
	Level   Level  `json:"level"`
	Message string `json:"message"` // what, and why: one line
	Cure    string `json:"cure"`    // the command or act that mends it, "" when all is well
}

// Findings are all that was looked at.
type Findings []Finding

// Add adds a finding, whose message is made as fmt.Sprintf does.
func (f *Findings) Add(code string, level Level, cure, format string, args ...any) {
	*f = append(*f, Finding{Code: code, Level: level, Message: fmt.Sprintf(format, args...), Cure: cure})
}

// Sort brings the worst to the front; what is equally bad stays in its order.
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
