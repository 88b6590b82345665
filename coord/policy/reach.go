package policy

import (
	"cmp"
	"slices"
	"strings"
)

// Group is subjects that one node reaches by the same rules, or that reach one node by the
// same rules.
type Group struct {
	Rules   []int  // indexes of the rules, ascending
	Members []int  // indexes of the subjects, ascending
	Ports   string // all ports that these rules open, in the words of a rule
}

// Reached groups the subjects of dst that src reaches, in the order of the rules.
func (p *Policy) Reached(src Subject, dst []Subject) []Group {
	return p.group(len(dst), func(i int) Set { return p.compiled.between(src, dst[i]) })
}

// Reaching groups the subjects of src that reach dst, in the order of the rules.
func (p *Policy) Reaching(dst Subject, src []Subject) []Group {
	return p.group(len(src), func(i int) Set { return p.compiled.between(src[i], dst) })
}

func (p *Policy) group(n int, rules func(i int) Set) (list []Group) {
	numbers := map[string]int{}
	for i := range n {
		set := rules(i)
		if set.empty() {
			continue
		}
		key := string(appendSet(nil, set))
		at, ok := numbers[key]
		if !ok {
			at = len(list)
			numbers[key] = at
			list = append(list, Group{Rules: slices.Collect(set.All())})
			var open ports
			for _, rule := range list[at].Rules {
				for _, r := range p.compiled.rules[rule].ports {
					open.add(r)
				}
			}
			list[at].Ports = open.String()
		}
		list[at].Members = append(list[at].Members, i)
	}
	slices.SortFunc(list, func(a, b Group) int {
		return cmp.Or(slices.Compare(a.Rules, b.Rules), strings.Compare(a.Ports, b.Ports))
	})
	return list
}
