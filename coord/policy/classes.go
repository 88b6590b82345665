package policy

// Classes holds subjects by number, as one policy relates them. Who reaches
// whom is not kept: it is found through the selectors, so that a new class
// costs its selectors, and a question costs the policy and the answer.
//
// Methods that change nothing may be called from many goroutines at once, but
// not while Add is.
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
	self      bool // reaches all that its owner has
}

// Relate returns the classes of these subjects, numbered from 0.
func (p *Policy) Relate(subjects []Subject) *Classes {
	c := &Classes{policy: &p.compiled, list: make([]class, 0, len(subjects)), match: make([][]int, len(p.compiled.from)), owned: map[string][]int{}}
	for _, s := range subjects {
		c.Add(s)
	}
	return c
}

// Add gives a subject the next number, which it returns.
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

// Len returns how many there are.
func (c *Classes) Len() int { return len(c.list) }

// Reached returns the classes that class i reaches, as Policy.Reaches says it.
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

// selected returns the classes that one of these selectors selects.
func (c *Classes) selected(selectors Set) Set {
	s := newSet(len(c.list))
	for n := range selectors.All() {
		for _, i := range c.match[n] {
			s.add(i)
		}
	}
	return s
}
