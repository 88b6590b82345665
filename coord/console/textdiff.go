package console

import (
	"slices"
	"strings"
)

// diffLine is a line of a comparison of two texts.
type diffLine struct {
	Op     string // "+" in the second alone, "-" in the first alone, " " in both, "@" some lines of both are left out
	Before int    // its number in the first text, from 1; 0 if it is not there
	After  int    // likewise in the second
	Text   string
}

const (
	diffContext = 3   // lines of both around a change
	maxEdits    = 500 // beyond that, all between the first and the last change counts as changed
)

// diffLines compares two texts line by line (Myers 1986). It returns nothing for texts that are
// the same.
func diffLines(before, after string) []diffLine {
	a, b := strings.Split(strings.TrimSuffix(before, "\n"), "\n"), strings.Split(strings.TrimSuffix(after, "\n"), "\n")
	head, tail := 0, 0
	for head < len(a) && head < len(b) && a[head] == b[head] {
		head++
	}
	for tail < len(a)-head && tail < len(b)-head && a[len(a)-1-tail] == b[len(b)-1-tail] {
		tail++
	}
	var all []diffLine
	for i := range head {
		all = append(all, diffLine{" ", i + 1, i + 1, a[i]})
	}
	for _, l := range edits(a[head:len(a)-tail], b[head:len(b)-tail]) {
		if l.Before > 0 {
			l.Before += head
		}
		if l.After > 0 {
			l.After += head
		}
		all = append(all, l)
	}
	for i := range tail {
		x, y := len(a)-tail+i, len(b)-tail+i
		all = append(all, diffLine{" ", x + 1, y + 1, a[x]})
	}
	return around(all)
}

// around leaves out what is far from any change.
func around(all []diffLine) (out []diffLine) {
	near := make([]bool, len(all))
	for i, l := range all {
		if l.Op != " " {
			for j := max(i-diffContext, 0); j <= min(i+diffContext, len(all)-1); j++ {
				near[j] = true
			}
		}
	}
	for i, l := range all {
		if near[i] {
			if len(out) > 0 && i > 0 && !near[i-1] {
				out = append(out, diffLine{Op: "@"})
			}
			out = append(out, l)
		}
	}
	return out
}

// edits is the shortest way from a to b, or all of a and then all of b if that is long.
func edits(a, b []string) []diffLine {
	all := func() (out []diffLine) {
		for i, l := range a {
			out = append(out, diffLine{"-", i + 1, 0, l})
		}
		for i, l := range b {
			out = append(out, diffLine{"+", 0, i + 1, l})
		}
		return out
	}
	most := min(len(a)+len(b), maxEdits)
	// reach[d] says, for each diagonal k = x-y of -d to d, how far d edits lead on it.
	var reach [][]int
	last := []int{0, 0, 0}
	for d := 0; d <= most; d++ {
		v := make([]int, 2*d+3) // of diagonals -d-1 to d+1
		at := func(k int) int {
			if d == 0 {
				return 0
			}
			return last[k+d] // of diagonals -d to d, as the round before has them
		}
		for k := -d; k <= d; k += 2 {
			x := 0
			switch {
			case d == 0:
			case k == -d || k != d && at(k-1) < at(k+1):
				x = at(k + 1)
			default:
				x = at(k-1) + 1
			}
			y := x - k
			for x < len(a) && y < len(b) && x >= 0 && y >= 0 && a[x] == b[y] {
				x, y = x+1, y+1
			}
			v[k+d+1] = x
			if x >= len(a) && y >= len(b) {
				reach = append(reach, v)
				return walk(a, b, reach)
			}
		}
		reach = append(reach, v)
		last = v
	}
	return all()
}

// walk goes back from the end along what edits has found.
func walk(a, b []string, reach [][]int) []diffLine {
	var back []diffLine
	x, y := len(a), len(b)
	for d := len(reach) - 1; d > 0; d-- {
		before := reach[d-1]
		at := func(k int) int { return before[k+d] }
		k := x - y
		from := k - 1
		if k == -d || k != d && at(k-1) < at(k+1) {
			from = k + 1
		}
		px := at(from)
		py := px - from
		for x > px && y > py {
			back = append(back, diffLine{" ", x, y, a[x-1]})
			x, y = x-1, y-1
		}
		if x == px {
			back = append(back, diffLine{"+", 0, y, b[y-1]})
		} else {
			back = append(back, diffLine{"-", x, 0, a[x-1]})
		}
		x, y = px, py
	}
	for x > 0 && y > 0 {
		back = append(back, diffLine{" ", x, y, a[x-1]})
		x, y = x-1, y-1
	}
	slices.Reverse(back)
	return back
}
