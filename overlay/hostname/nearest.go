package hostname

import "strings"

// maxNearest bounds the names that Nearest compares; with more devices there is no
// suggestion.
const maxNearest = 10_000

// Nearest returns the name among known, in lower case, that typed most likely means:
// one that differs by a letter or two, or a longer one that starts with typed. It
// returns "" if no name is near, or if two are equally near.
func Nearest(typed string, known []string) string {
	typed = strings.ToLower(typed)
	forms := [][]rune{[]rune(typed)}
	if ascii, err := ASCII(typed); err == nil && ascii != typed {
		forms = append(forms, []rune(ascii))
	}
	best, tie := "", false
	least := min(len(forms[0])/3+1, 3) // the smallest distance that is too large
	for _, name := range known[:min(len(known), maxNearest)] {
		d := 3
		for _, f := range forms {
			if len(f) < 64 {
				d = min(d, distance(f, []rune(name)))
			}
		}
		if len(typed) >= 3 && strings.HasPrefix(name, typed) {
			d = min(d, 1)
		}
		switch {
		case d < least:
			best, least, tie = name, d, false
		case d == least && best != "" && name != best:
			tie = true
		}
	}
	if tie {
		return ""
	}
	return best
}

// distance is the number of letters to insert, delete, change or swap with their
// neighbour to turn a into b; from 3 on the result may be too low.
func distance(a, b []rune) int {
	if len(a)-len(b) > 2 || len(b)-len(a) > 2 {
		return 3
	}
	before, last, now := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := range a {
		now[0] = i + 1
		for j := range b {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			now[j+1] = min(last[j+1]+1, now[j]+1, last[j]+cost)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				now[j+1] = min(now[j+1], before[j-1]+1)
			}
		}
		before, last, now = last, now, before
	}
	return last[len(b)]
}
