package cli

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

// IsTerminal reports whether somebody sits at the other end of f, an *os.File
// or anything else.
func IsTerminal(f any) bool {
	file, ok := f.(*os.File)
	return ok && isTerminal(file.Fd())
}

// Confirm asks a question on a terminal and reports whether the answer was yes.
func Confirm(in io.Reader, out io.Writer, question string) bool {
	fmt.Fprintf(out, "%s [y/N] ", question)
	line, _ := bufio.NewReader(in).ReadString('\n')
	answer := strings.ToLower(strings.TrimSpace(line))
	return answer == "y" || answer == "yes"
}

// Progress counts what is written to it and, on a terminal, says so now and then
// on one line of out. It belongs to one goroutine.
type Progress struct {
	out   io.Writer // nil: say nothing
	what  string
	done  int64
	shown time.Time
}

// NewProgress says "what: 12 MB" on out while it is a terminal.
func NewProgress(out io.Writer, what string) *Progress {
	if !IsTerminal(out) || os.Getenv("TERM") == "dumb" {
		out = nil
	}
	return &Progress{out: out, what: what, shown: time.Now()}
}

// Write counts.
func (p *Progress) Write(b []byte) (int, error) {
	p.done += int64(len(b))
	if now := time.Now(); p.out != nil && now.Sub(p.shown) > 200*time.Millisecond {
		p.shown = now
		fmt.Fprintf(p.out, "\r\x1b[K%s: %.1f MB", p.what, float64(p.done)/1e6)
	}
	return len(b), nil
}

// End takes the line away again.
func (p *Progress) End() {
	if p.out != nil {
		io.WriteString(p.out, "\r\x1b[K")
	}
}
