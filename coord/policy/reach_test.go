package policy

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// A group has exactly those that the rules let through, and what Explain says is open.
func TestReachGroups(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 60 {
		p, subjects := randomPolicy(t, r), randomSubjects(r)
		for _, one := range subjects[:min(10, len(subjects))] {
			for _, c := range []struct {
				groups []Group
				open   func(other Subject) string
			}{
				{p.Reached(one, subjects), func(o Subject) string { return p.Explain(one, o, "tcp", 1).Open }},
				{p.Reaching(one, subjects), func(o Subject) string { return p.Explain(o, one, "tcp", 1).Open }},
			} {
				in := make([]string, len(subjects))
				for i, g := range c.groups {
					if i > 0 && slices.Compare(c.groups[i-1].Rules, g.Rules) >= 0 {
						t.Errorf("the rules %v come after %v", g.Rules, c.groups[i-1].Rules)
					}
					for _, m := range g.Members {
						if in[m] != "" {
							t.Errorf("%d is in two groups", m)
						}
						in[m] = g.Ports
					}
				}
				for i, o := range subjects {
					if want := c.open(o); in[i] != want {
						t.Errorf("%+v and %+v: %q, want %q", one, o, in[i], want)
					}
				}
			}
		}
	}
}
