package policy

// Classes holds numbered subjects and which of them reach which by one policy. The pairs are
// not stored but found through the selectors: adding a class costs as much as its selectors,
// and a query as much as the policy and the answer.
//
// All methods but Add may be called from many goroutines at once, but not during a call of
// Add.
type Classes struct {
	policy *compiled
	list   []class
	match  [][]int          // by selector: the classes that it selects, in order
	owned  map[string][]int // by owner, in order
}

type class struct {
	user      string
	selectors []int
	silent    bool // reaches nothing
	self      bool // reaches all devices of its owner
}

// Relate returns Classes with these subjects, numbered from 0.
func (p *Policy) Relate(subjects []Subject) *Classes {
	c := &Classes{policy: &p.compiled, list: make([]class, 0, len(subjects)), match: make([][]int, len(p.compiled.from)), owned: map[string][]int{}}
	for _, s := range subjects {
		c.Add(s)
	}
	return c
}

// Add adds a subject and returns its number, which is the next one.
func (c *Classes) Add(s Subject) int {
	number := len(c.list)
	selectors := c.policy.selectorsOf(s)
	self := s.acts() && c.policy.rulesOf(s).meets(c.policy.self)
	c.list = append(c.list, class{user: s.User, selectors: selectors, silent: s.silent(), self: self})
	for _, n := range selectors {
		c.match[n] = append(c.match[n], number)
	}
	c.owned[s.User] = append(c.owned[s.User], number)
	return number
}

// Len returns the number of classes.
func (c *Classes) Len() int { return len(c.list) }

// Reached returns the classes that class i reaches by Policy.Reaches.
func (c *Classes) Reached(i int) Set {
	me := &c.list[i]
	if me.silent {
		return newSet(len(c.list))
	}
	to := newSet(len(c.match))
	for r := range c.policy.rulesFrom(me.selectors).All() {
		for _, n := range c.policy.rules[r].to {
			to.add(n)
		}
	}
	reached := c.selected(to)
	if me.self {
		for _, n := range c.owned[me.user] {
			reached.add(n)
		}
	}
	return reached
}

// Reaching returns the classes that reach class i.
func (c *Classes) Reaching(i int) Set {
	me := &c.list[i]
	from := newSet(len(c.match))
	for r := range c.policy.rulesTo(me.selectors).All() {
		for _, n := range c.policy.rules[r].from {
			from.add(n)
		}
	}
	reaching := c.selected(from)
	for n := range reaching.All() {
		if c.list[n].silent {
			reaching.remove(n)
		}
	}
	for _, n := range c.owned[me.user] {
		if c.list[n].self {
			reaching.add(n)
		}
	}
	return reaching
}

// selected returns the classes that at least one of these selectors selects.
func (c *Classes) selected(selectors Set) Set {
	s := newSet(len(c.list))
	for n := range selectors.All() {
		for _, i := range c.match[n] {
			s.add(i)
		}
	}
	return s
}
