package console

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

func drawn(list []diffLine) string {
	var out []string
	for _, l := range list {
		out = append(out, fmt.Sprintf("%s%d,%d %s", l.Op, l.Before, l.After, l.Text))
	}
	return strings.Join(out, "|")
}

func TestDiffLines(t *testing.T) {
	for _, c := range []struct{ before, after, want string }{
		{"a\nb\n", "a\nb\n", ""},
		{"a\nb", "a\nb\n", ""},
		{"", "a", "-1,0 |+0,1 a"},
		{"a\nb\nc\n", "a\nx\nc\n", " 1,1 a|-2,0 b|+0,2 x| 3,3 c"},
		{"1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n", "1\n2\n3\n4\n6\n7\n8\n9\n10\n11\n", " 2,2 2| 3,3 3| 4,4 4|-5,0 5| 6,5 6| 7,6 7| 8,7 8| 9,8 9| 10,9 10|+0,10 11"},
		{"x\n1\n2\n3\n4\n5\n6\n7\n8\ny", "1\n2\n3\n4\n5\n6\n7\n8\nz", "-1,0 x| 2,1 1| 3,2 2| 4,3 3|@0,0 | 7,6 6| 8,7 7| 9,8 8|-10,0 y|+0,9 z"},
	} {
		if got := drawn(diffLines(c.before, c.after)); got != c.want {
			t.Errorf("%q, %q\ngot  %s\nwant %s", c.before, c.after, got, c.want)
		}
	}
}

// Whatever the texts are, what is there in the first and the second is what they were, in order;
// and no shorter way leads from one to the other.
func TestEdits(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 3000 {
		text := func() (list []string) {
			for range r.IntN(12) {
				list = append(list, string(rune('a'+r.IntN(3))))
			}
			return list
		}
		a, b := text(), text()
		var first, second []string
		changes := 0
		for _, l := range edits(a, b) {
			if l.Op != "+" {
				if first = append(first, l.Text); l.Before != len(first) {
					t.Fatalf("%v %v: line %d of the first is %d", a, b, len(first), l.Before)
				}
			}
			if l.Op != "-" {
				if second = append(second, l.Text); l.After != len(second) {
					t.Fatalf("%v %v: line %d of the second is %d", a, b, len(second), l.After)
				}
			}
			if l.Op != " " {
				changes++
			}
		}
		if !slices.Equal(first, a) || !slices.Equal(second, b) {
			t.Fatalf("%v %v became %v %v", a, b, first, second)
		}
		// The longest common subsequence, the slow way.
		lcs := make([][]int, len(a)+1)
		for i := range lcs {
			lcs[i] = make([]int, len(b)+1)
		}
		for i := range a {
			for j := range b {
				lcs[i+1][j+1] = max(lcs[i][j+1], lcs[i+1][j])
				if a[i] == b[j] {
					lcs[i+1][j+1] = lcs[i][j] + 1
				}
			}
		}
		if want := len(a) + len(b) - 2*lcs[len(a)][len(b)]; changes != want {
			t.Fatalf("%v %v: %d changes, want %d", a, b, changes, want)
		}
	}
	// Beyond the bound everything counts as changed, and nothing is lost.
	var a, b []string
	for i := range 2 * maxEdits {
		a, b = append(a, fmt.Sprint("a", i)), append(b, fmt.Sprint("b", i))
	}
	if got := edits(a, b); len(got) != len(a)+len(b) || got[0].Op != "-" || got[len(got)-1].Op != "+" {
		t.Errorf("%d lines", len(got))
	}
}
