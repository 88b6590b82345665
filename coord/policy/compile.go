package policy

import (
	"iter"
	"math/bits"
	"slices"
	"strings"

	"weft/overlay/api"
)

// compiled is an index of a policy: from the attributes of a subject to the rules that select
// it. Selectors and rules are numbered.
type compiled struct {
	rules    []rule
	self     Set // rules to "self"
	direct   Set // rules to anything else
	aesRules Set // rules that demand AES

	selectors map[selector]int
	from, to  [][]int // by selector: the rules that name it in From or To
	aes       []bool  // by selector: whether all access to the devices that it selects demands AES
}

// rule is a Rule whose selectors are numbers, without duplicates.
type rule struct {
	from, to []int // without "self"
	self     bool  // To names "self"
	words    []string
	aes      bool
	ports    []api.PortRange
}

// selector is any selector but "self"; kind is "*", "user", "group" or "tag".
type selector struct{ kind, name string }

var everybody = selector{kind: "*"}

func compile(rules []Rule, ports [][]api.PortRange, aes []string) compiled {
	c := compiled{selectors: map[selector]int{}, self: newSet(len(rules)), direct: newSet(len(rules)), aesRules: newSet(len(rules))}
	number := func(word string) int {
		var s selector
		s.kind, s.name, _ = strings.Cut(word, ":")
		n, ok := c.selectors[s]
		if !ok {
			n = len(c.selectors)
			c.selectors[s] = n
			c.from, c.to, c.aes = append(c.from, nil), append(c.to, nil), append(c.aes, false)
		}
		return n
	}
	for i, r := range rules {
		out := rule{ports: ports[i], aes: r.AES}
		if r.AES {
			c.aesRules.add(i)
		}
		had := map[string]bool{}
		for _, word := range r.From {
			if !had[word] {
				had[word] = true
				n := number(word)
				out.words, out.from, c.from[n] = append(out.words, word), append(out.from, n), append(c.from[n], i)
			}
		}
		clear(had)
		for _, word := range r.To {
			switch {
			case word == "self":
				out.self = true
				c.self.add(i)
			case !had[word]:
				had[word] = true
				n := number(word)
				out.to, c.to[n] = append(out.to, n), append(c.to[n], i)
				c.direct.add(i)
			}
		}
		c.rules = append(c.rules, out)
	}
	for _, word := range aes {
		c.aes[number(word)] = true
	}
	return c
}

// demandsAES reports whether all access to a device that these selectors select demands AES.
func (c *compiled) demandsAES(selectors []int) bool {
	return slices.ContainsFunc(selectors, func(n int) bool { return c.aes[n] })
}

// selectorsOf returns the selectors of the policy that select a node.
func (c *compiled) selectorsOf(s Subject) []int {
	var list []int
	add := func(kind, name string) {
		if n, ok := c.selectors[selector{kind, name}]; ok && !slices.Contains(list, n) {
			list = append(list, n)
		}
	}
	add(everybody.kind, everybody.name)
	if s.acts() {
		add("user", "*")
		add("user", s.User)
	}
	if len(s.Tags) == 0 {
		for _, name := range s.Groups {
			add("group", name)
		}
	}
	for _, name := range s.Tags {
		add("tag", name)
	}
	return list
}

// rulesOf returns the rules that let a subject reach something.
func (c *compiled) rulesOf(s Subject) Set {
	if s.silent() {
		return newSet(len(c.rules))
	}
	return c.rulesFrom(c.selectorsOf(s))
}

// rulesFrom returns the rules that name one of these selectors in From.
func (c *compiled) rulesFrom(selectors []int) Set { return unionOf(len(c.rules), c.from, selectors) }

// rulesTo returns the rules that name one of these selectors in To.
func (c *compiled) rulesTo(selectors []int) Set { return unionOf(len(c.rules), c.to, selectors) }

func unionOf(size int, lists [][]int, of []int) Set {
	s := newSet(size)
	for _, i := range of {
		for _, n := range lists[i] {
			s.add(n)
		}
	}
	return s
}

// Set is a set of small numbers.
type Set []uint64

func newSet(size int) Set { return make(Set, (size+63)/64) }

func (s Set) add(i int) { s[i/64] |= 1 << (i % 64) }

func (s Set) remove(i int) { s[i/64] &^= 1 << (i % 64) }

// Has reports whether i, which is not negative, is in the set.
func (s Set) Has(i int) bool { return i/64 < len(s) && s[i/64]>>(i%64)&1 != 0 }

// All returns the numbers in the set, in ascending order.
func (s Set) All() iter.Seq[int] {
	return func(yield func(int) bool) {
		for i, word := range s {
			for ; word != 0; word &= word - 1 {
				if !yield(i*64 + bits.TrailingZeros64(word)) {
					return
				}
			}
		}
	}
}

// meets reports whether two sets of the same size have a number in common.
func (s Set) meets(o Set) bool {
	for i, word := range s {
		if word&o[i] != 0 {
			return true
		}
	}
	return false
}

func (s Set) empty() bool { return !s.meets(s) }
