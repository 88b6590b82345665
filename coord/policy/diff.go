package policy

import (
	"encoding/binary"
	"slices"
)

// Scope says to which pairs of From and To a change applies.
type Scope string

// The scopes.
const (
	Everybody Scope = ""       // all of them
	Own       Scope = "own"    // each with what belongs to the same person
	Others    Scope = "others" // each with what belongs to somebody else
)

// Change is access that is gained or lost: from each of From to each of To, within Scope, at
// Ports. From and To are numbers of subjects, in order.
type Change struct {
	From, To []int
	Scope    Scope
	Ports    string // in the words of a rule, separated by ", "
}

// Changes has all access that is gained and lost, each pair with all its ports.
type Changes struct{ Gains, Losses []Change }

// Diff compares two policies: between, of some subjects, who reaches what under after
// and not before, and the other way round. Subjects that both policies treat alike are
// compared once: the costs are those of the policies, not of the subjects.
func Diff(before, after *Policy, subjects []Subject) Changes {
	d := &differ{rules: [2]*compiled{&before.compiled, &after.compiled}, of: make([]sides, len(subjects)), known: map[[2]int]change{}}
	for k := range 2 {
		d.sets[k], d.ports[k] = map[string]int{}, []ports{{}}
	}
	d.sort(subjects)
	gains, losses := collector{}, collector{}
	// What belongs to one person differs where rules to "self" make a difference.
	owned := map[string][]int{}
	for i, s := range subjects {
		if s.User != "" {
			owned[s.User] = append(owned[s.User], i)
		}
	}
	special := map[[2]int]bool{} // pairs of sides, between which owners differ
	eachOwn := func(f func(i, j int)) {
		for i, s := range subjects {
			if s.acts() && d.self(d.of[i].from) {
				for _, j := range owned[s.User] {
					f(i, j)
				}
			}
		}
	}
	eachOwn(func(i, j int) {
		pair := [2]int{d.of[i].from, d.of[j].to}
		if !special[pair] {
			special[pair] = d.change(pair[0], pair[1], true) != d.change(pair[0], pair[1], false)
		}
	})
	eachOwn(func(i, j int) {
		if pair := [2]int{d.of[i].from, d.of[j].to}; special[pair] {
			c := d.change(pair[0], pair[1], true)
			gains.own(c.gained, i, j)
			losses.own(c.lost, i, j)
		}
	})
	for from := range d.froms {
		g, l := map[access][]int{}, map[access][]int{}
		for to := range d.tos {
			c := d.change(from, to, false)
			if c == (change{}) {
				continue
			}
			scope := Everybody
			if special[[2]int{from, to}] {
				scope = Others
			}
			if c.gained != "" {
				a := access{c.gained, scope}
				g[a] = append(g[a], to)
			}
			if c.lost != "" {
				a := access{c.lost, scope}
				l[a] = append(l[a], to)
			}
		}
		gains.sides(from, g)
		losses.sides(from, l)
	}
	return Changes{gains.list(d, subjects), losses.list(d, subjects)}
}

// differ compares two policies, the first and the second of each pair.
type differ struct {
	rules [2]*compiled
	of    []sides // by subject
	// Those that are selected alike, by number: by which rules, and who.
	froms, tos []side
	// Sets of ports by number, of each policy, and by the rules that open them. Number 0
	// is empty.
	sets  [2]map[string]int
	ports [2][]ports
	// What two sets come to.
	known map[[2]int]change
}

// sides are the numbers of a subject among froms and tos.
type sides struct{ from, to int }

type side struct {
	rules [2]Set
	who   []int
}

// change is what comes and what goes, in words.
type change struct{ gained, lost string }

// sort finds those that are alike.
func (d *differ) sort(subjects []Subject) {
	froms, tos := map[string]int{}, map[string]int{}
	number := func(known map[string]int, list *[]side, rules [2]Set, acts bool, i int) int {
		b := appendSet(appendSet(nil, rules[0]), rules[1])
		if acts {
			b = append(b, 1)
		}
		key := string(b)
		n, ok := known[key]
		if !ok {
			n = len(*list)
			known[key] = n
			*list = append(*list, side{rules: rules})
		}
		(*list)[n].who = append((*list)[n].who, i)
		return n
	}
	for i, s := range subjects {
		var from, to [2]Set
		for k, c := range d.rules {
			selectors := c.selectorsOf(s)
			from[k], to[k] = c.rulesOf(s), c.rulesTo(selectors)
		}
		d.of[i] = sides{number(froms, &d.froms, from, s.acts(), i), number(tos, &d.tos, to, false, i)}
	}
}

func appendSet(b []byte, s Set) []byte {
	for _, word := range s {
		b = binary.LittleEndian.AppendUint64(b, word)
	}
	return b
}

// self reports whether rules to "self" say anything about these.
func (d *differ) self(from int) bool {
	return d.froms[from].rules[0].meets(d.rules[0].self) || d.froms[from].rules[1].meets(d.rules[1].self)
}

// change compares what these reach at those, of the same person or not.
func (d *differ) change(from, to int, own bool) change {
	var numbers [2]int
	for k := range 2 {
		numbers[k] = d.between(k, from, to, own)
	}
	if numbers == [2]int{} {
		return change{}
	}
	c, ok := d.known[numbers]
	if !ok {
		before, after := d.ports[0][numbers[0]], d.ports[1][numbers[1]]
		c = change{after.without(before).String(), before.without(after).String()}
		d.known[numbers] = c
	}
	return c
}

// between returns the number of the set of ports, 0 for none.
func (d *differ) between(k, from, to int, own bool) int {
	a, b := d.froms[from].rules[k], d.tos[to].rules[k]
	var key [(maxRules + 63) / 64 * 8]byte
	some := false
	for i := range a {
		word := b[i]
		if own {
			word |= d.rules[k].self[i]
		}
		word &= a[i]
		some = some || word != 0
		binary.LittleEndian.PutUint64(key[8*i:], word)
	}
	if !some {
		return 0
	}
	n, ok := d.sets[k][string(key[:8*len(a)])]
	if ok {
		return n
	}
	var set ports
	for i := range a {
		word := binary.LittleEndian.Uint64(key[8*i:])
		for r := range (Set{word}).All() {
			for _, p := range d.rules[k].rules[64*i+r].ports {
				set.add(p)
			}
		}
	}
	n = len(d.ports[k])
	d.ports[k] = append(d.ports[k], set)
	d.sets[k][string(key[:8*len(a)])] = n
	return n
}

// access is what all pairs of a change have in common.
type access struct {
	ports string
	scope Scope
}

// collector puts together what comes, or goes.
type collector struct {
	owns  map[string]*Change  // by ports
	joint map[jointKey]*[]int // who has the same access to the same
	order []jointKey
	tos   map[jointKey][]int
}

type jointKey struct {
	access
	tos string
}

func (c *collector) own(ports string, from, to int) {
	if ports == "" {
		return
	}
	if c.owns == nil {
		c.owns = map[string]*Change{}
	}
	if c.owns[ports] == nil {
		c.owns[ports] = &Change{Scope: Own, Ports: ports}
	}
	o := c.owns[ports]
	o.From, o.To = append(o.From, from), append(o.To, to)
}

func (c *collector) sides(from int, tos map[access][]int) {
	for a, list := range tos {
		var b []byte
		for _, to := range list {
			b = binary.LittleEndian.AppendUint32(b, uint32(to))
		}
		key := jointKey{a, string(b)}
		if c.joint == nil {
			c.joint, c.tos = map[jointKey]*[]int{}, map[jointKey][]int{}
		}
		if c.joint[key] == nil {
			c.joint[key], c.tos[key] = new([]int), list
			c.order = append(c.order, key)
		}
		*c.joint[key] = append(*c.joint[key], from)
	}
}

// list returns the changes, the widest first.
func (c *collector) list(d *differ, subjects []Subject) []Change {
	var list []Change
	for _, key := range c.order {
		change := Change{Scope: key.scope, Ports: key.ports}
		for _, n := range *c.joint[key] {
			change.From = append(change.From, d.froms[n].who...)
		}
		for _, n := range c.tos[key] {
			change.To = append(change.To, d.tos[n].who...)
		}
		list = append(list, change)
	}
	for _, o := range c.owns {
		list = append(list, *o)
	}
	for i := range list {
		for _, l := range []*[]int{&list[i].From, &list[i].To} {
			slices.Sort(*l)
			*l = slices.Compact(*l)
		}
		list[i].narrow(subjects)
	}
	list = slices.DeleteFunc(list, func(c Change) bool { return len(c.From) == 0 })
	slices.SortFunc(list, func(a, b Change) int {
		if n := len(b.From)*len(b.To) - len(a.From)*len(a.To); n != 0 {
			return n
		}
		if n := slices.Compare(a.From, b.From); n != 0 {
			return n
		}
		if n := slices.Compare(a.To, b.To); n != 0 {
			return n
		}
		return slices.Compare([]byte(a.Ports+string(a.Scope)), []byte(b.Ports+string(b.Scope)))
	})
	return list
}

// narrow takes those out of a change among others that find no others in it, and drops a
// scope that makes no difference.
func (c *Change) narrow(subjects []Subject) {
	// users counts the subjects of each person, nobody's apart.
	users := func(of []int) map[string]int {
		m := map[string]int{}
		for _, i := range of {
			m[subjects[i].User]++
		}
		return m
	}
	alone := func(of []int, others map[string]int, all int) []int {
		return slices.DeleteFunc(of, func(i int) bool { u := subjects[i].User; return u != "" && others[u] == all })
	}
	from, to := users(c.From), users(c.To)
	switch {
	case c.Scope == Everybody:
		return
	case c.Scope == Own:
		if len(from) == 1 && len(to) == 1 {
			c.Scope = Everybody
		}
		return
	}
	froms, tos := len(c.From), len(c.To)
	c.From, c.To = alone(c.From, to, tos), alone(c.To, from, froms)
	if len(c.From) == 0 || len(c.To) == 0 {
		c.From, c.To = nil, nil
		return
	}
	to = users(c.To)
	for user := range users(c.From) {
		if user != "" && to[user] > 0 {
			return
		}
	}
	c.Scope = Everybody
}
