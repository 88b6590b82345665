package policy

import (
	"encoding/binary"
	"slices"
	"strconv"
)

// Scope says to which pairs of From and To a change applies.
type Scope string

// The scopes.
const (
	Everybody Scope = ""       // all of them
	Own       Scope = "own"    // only pairs that belong to the same user
	Others    Scope = "others" // only pairs that belong to different users
)

// Change is access that differs between two policies: from each of From to each of To, within
// Scope, at Ports. From and To are indexes of subjects, in order.
type Change struct {
	From, To []int
	Scope    Scope
	Ports    string // in the words of a rule, separated by ", "
}

// Changes lists how the access of pairs of subjects differs, each pair with all its ports.
type Changes struct {
	Gains, Losses []Change
	// AESAdded is access that demands AES under the second policy and does not under the
	// first, new access included. AESRemoved is access under both that demands AES under the
	// first only.
	AESAdded, AESRemoved []Change
}

// Diff compares what the subjects reach under two policies. Subjects that both policies treat
// alike are compared once: the cost depends on the policies, not on the number of subjects.
func Diff(before, after *Policy, subjects []Subject) Changes {
	d := &differ{rules: [2]*compiled{&before.compiled, &after.compiled}, of: make([]sides, len(subjects)), known: map[[2]opened]change{}}
	for k := range 2 {
		d.sets[k], d.ports[k] = map[string]int{}, []ports{{}}
	}
	d.sort(subjects)
	var collectors [kindsOfChange]collector
	// Pairs of one owner are compared apart where rules to "self" make a difference.
	owned := map[string][]int{}
	for i, s := range subjects {
		if s.User != "" {
			owned[s.User] = append(owned[s.User], i)
		}
	}
	special := map[[2]int]bool{} // pairs of sides where it matters whether the owner is the same
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
			for k := range collectors {
				collectors[k].own(c[k], i, j)
			}
		}
	})
	for from := range d.froms {
		var found [kindsOfChange]map[access][]int
		for k := range found {
			found[k] = map[access][]int{}
		}
		for to := range d.tos {
			c := d.change(from, to, false)
			if c == (change{}) {
				continue
			}
			scope := Everybody
			if special[[2]int{from, to}] {
				scope = Others
			}
			for k, ports := range c {
				if ports != "" {
					a := access{ports, scope}
					found[k][a] = append(found[k][a], to)
				}
			}
		}
		for k := range collectors {
			collectors[k].sides(from, found[k])
		}
	}
	var lists [kindsOfChange][]Change
	for k := range collectors {
		lists[k] = collectors[k].list(d, subjects)
	}
	return Changes{lists[gained], lists[lost], lists[aesAdded], lists[aesRemoved]}
}

// differ compares two policies: index 0 is the first, 1 the second.
type differ struct {
	rules [2]*compiled
	of    []sides // by subject
	// Subjects that both policies treat alike, as sources and as destinations.
	froms, tos []side
	// The sets of ports of each policy, and their indexes by the rules that open them. Set 0
	// is empty.
	sets  [2]map[string]int
	ports [2][]ports
	// known caches the difference of two sets.
	known map[[2]opened]change
}

// sides are the indexes of a subject in froms and tos.
type sides struct{ from, to int }

type side struct {
	rules [2]Set
	aes   [2]bool // as a destination: all access to it demands AES
	who   []int   // indexes of the subjects
}

// opened has the indexes of two sets of ports: all that rules open, and those that they open
// without a demand for AES.
type opened struct{ all, plain int }

// The kinds of a change.
const (
	gained = iota
	lost
	aesAdded
	aesRemoved
	kindsOfChange
)

// change has the ports that changed, by kind, in the words of a rule.
type change [kindsOfChange]string

// sort groups the subjects that both policies treat alike.
func (d *differ) sort(subjects []Subject) {
	froms, tos := map[string]int{}, map[string]int{}
	number := func(known map[string]int, list *[]side, s side, acts bool, i int) int {
		b := appendSet(appendSet(nil, s.rules[0]), s.rules[1])
		for _, flag := range []bool{acts, s.aes[0], s.aes[1]} {
			b = strconv.AppendBool(b, flag)
		}
		key := string(b)
		n, ok := known[key]
		if !ok {
			n = len(*list)
			known[key] = n
			*list = append(*list, s)
		}
		(*list)[n].who = append((*list)[n].who, i)
		return n
	}
	for i, s := range subjects {
		var from, to side
		for k, c := range d.rules {
			selectors := c.selectorsOf(s)
			from.rules[k], to.rules[k], to.aes[k] = c.rulesOf(s), c.rulesTo(selectors), c.demandsAES(selectors)
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

// self reports whether a rule to "self" applies to these sources.
func (d *differ) self(from int) bool {
	return d.froms[from].rules[0].meets(d.rules[0].self) || d.froms[from].rules[1].meets(d.rules[1].self)
}

// change compares what these sources reach at these destinations. own says that a source and
// a destination have the same owner.
func (d *differ) change(from, to int, own bool) change {
	numbers := [2]opened{d.between(0, from, to, own), d.between(1, from, to, own)}
	if numbers == [2]opened{} {
		return change{}
	}
	c, ok := d.known[numbers]
	if !ok {
		before, after := d.ports[0][numbers[0].all], d.ports[1][numbers[1].all]
		plainBefore, plainAfter := d.ports[0][numbers[0].plain], d.ports[1][numbers[1].plain]
		aesBefore, aesAfter := before.without(plainBefore), after.without(plainAfter)
		c = change{
			gained: after.without(before).String(), lost: before.without(after).String(),
			aesAdded:   aesAfter.without(aesBefore).String(),
			aesRemoved: aesBefore.without(aesAfter).without(before.without(after)).String(),
		}
		d.known[numbers] = c
	}
	return c
}

// between returns what policy k opens.
func (d *differ) between(k, from, to int, own bool) (o opened) {
	a, b := d.froms[from].rules[k], d.tos[to].rules[k]
	var room [(maxRules + 63) / 64]uint64
	rules := Set(room[:len(a)])
	for i := range a {
		word := b[i]
		if own {
			word |= d.rules[k].self[i]
		}
		rules[i] = word & a[i]
	}
	o.all = d.set(k, rules)
	if d.tos[to].aes[k] {
		return o
	}
	for i := range rules {
		rules[i] &^= d.rules[k].aesRules[i]
	}
	o.plain = d.set(k, rules)
	return o
}

// set returns the index of the set of ports that these rules of policy k open.
func (d *differ) set(k int, rules Set) int {
	if rules.empty() {
		return 0
	}
	var room [(maxRules + 63) / 64 * 8]byte
	key := room[:8*len(rules)]
	for i, word := range rules {
		binary.LittleEndian.PutUint64(key[8*i:], word)
	}
	if n, ok := d.sets[k][string(key)]; ok {
		return n
	}
	var set ports
	for r := range rules.All() {
		for _, p := range d.rules[k].rules[r].ports {
			set.add(p)
		}
	}
	n := len(d.ports[k])
	d.ports[k] = append(d.ports[k], set)
	d.sets[k][string(key)] = n
	return n
}

// access is what all pairs of a Change have in common.
type access struct {
	ports string
	scope Scope
}

// collector joins the changes of one kind into a short list.
type collector struct {
	owns  map[string]*Change  // by ports
	joint map[jointKey]*[]int // sources with the same access to the same destinations
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

// narrow removes subjects from a change of scope Others that have nobody else's device on the
// other side, and drops a scope that makes no difference.
func (c *Change) narrow(subjects []Subject) {
	// users counts the subjects of each user; "" is for those without a user.
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
