package ops

import (
	"slices"

	"weft/coord/policy"
	"weft/coord/store"
)

// A node that sees more than lookupAbove nodes does not fetch the directory, but looks nodes up
// by name. It fetches the directory again when it sees fewer than lookupBelow.
const (
	lookupAbove = 1000
	lookupBelow = 800
)

// class is all nodes with the same owner and the same tags: the policy does not distinguish
// them.
type class struct {
	// constant
	key    string
	userID string
	number int // index in index.list

	subject policy.Subject // its groups, and whether it is suspended, can change

	classState
	sight
	lookup   bool   // the nodes look others up and have no directory
	switched uint64 // change with which lookup changed
	rulesN   uint64 // last change with which devices that may reach this class became overdue, or ceased to be
}

// classState is what other classes need to know of the nodes in a class.
type classState struct {
	count   int    // nodes
	changed uint64 // last change of one of them
}

// sight is what the nodes of a class see.
type sight struct {
	initiates bool
	visible   int    // number of nodes that they see
	dirN      uint64 // last change of their directory
}

// makeClassLocked returns the class with a key. A new class is not related to others until
// relateLocked is called.
func (x *index) makeClassLocked(key string) *class {
	if c := x.classes[key]; c != nil {
		return c
	}
	userID, tags := store.ClassOf(key)
	c := &class{key: key, userID: userID, subject: x.subjectLocked(userID, tags), number: len(x.list)}
	x.classes[key] = c
	for _, t := range tags {
		x.tags[t] = true
	}
	x.list = append(x.list, c)
	return c
}

// subjectLocked returns a user's devices with these tags in the form that policies need.
func (x *index) subjectLocked(userID string, tags []string) policy.Subject {
	p := x.people[userID]
	return policy.Subject{User: x.users[userID], Tags: tags, Groups: p.Groups, Suspended: p.Suspended}
}

// classLocked returns the class with a key, related to all others.
func (x *index) classLocked(key string) *class {
	c := x.makeClassLocked(key)
	x.relateLocked()
	return c
}

// relateLocked decides for new classes which classes they see, and which see them.
func (x *index) relateLocked() {
	for i := x.related.Len(); i < len(x.list); i++ {
		c := x.list[i]
		x.related.Add(c.subject)
		c.sight = sight{initiates: x.policy.Initiates(c.subject), dirN: max(1, x.network.FullAfter)}
		for o := range x.related.Reached(i).All() {
			c.sight.add(x.list[o].classState)
		}
		for o := range x.related.Reaching(i).All() {
			if o != i {
				x.list[o].sight.add(c.classState)
			}
		}
	}
}

// add adds a class that is seen, or a change of one: then c.count is the difference.
func (s *sight) add(c classState) {
	s.visible += c.count
	s.dirN = max(s.dirN, c.changed)
}

// outlook is what a policy means for the classes that exist at some time. It is made with
// outlookLocked, computed with decide, and put into force with adoptLocked.
type outlook struct {
	policy   *policy.Policy
	list     []*class
	states   []classState     // of list, at that time
	subjects []policy.Subject // of list, at that time
	people   policy.People
	audience *policy.Audience
	related  *policy.Classes
	sights   []sight
}

// outlookLocked returns an outlook for the present classes, on which decide has to be called.
func (x *index) outlookLocked() *outlook {
	o := &outlook{list: slices.Clip(x.list), states: make([]classState, len(x.list)), subjects: make([]policy.Subject, len(x.list)), people: x.peopleLocked()}
	for i, c := range x.list {
		o.states[i], o.subjects[i] = c.classState, x.subjectLocked(c.userID, c.subject.Tags)
	}
	return o
}

// decide computes which classes see which under a policy. It needs no lock.
func (o *outlook) decide(p *policy.Policy) {
	subjects := o.subjects
	o.policy, o.audience, o.related, o.sights = p, p.Audience(o.people), p.Relate(subjects), make([]sight, len(subjects))
	for i := range o.sights {
		s := &o.sights[i]
		s.initiates = p.Initiates(subjects[i])
		for seen := range o.related.Reached(i).All() {
			s.add(o.states[seen])
		}
	}
}

// adoptLocked puts a decided outlook into force with change n, and adds what has changed in the
// classes since the outlook was made.
func (x *index) adoptLocked(o *outlook, n uint64) {
	x.policy, x.audience, x.related = o.policy, o.audience, o.related
	for i, c := range o.list {
		c.sight, c.subject = o.sights[i], o.subjects[i]
		c.dirN = max(1, x.network.FullAfter, n, c.dirN)
	}
	for i, c := range o.list {
		if was := o.states[i]; c.classState != was {
			for by := range x.related.Reaching(i).All() {
				x.list[by].sight.add(classState{c.count - was.count, c.changed})
			}
		}
	}
	x.relateLocked()
	for _, c := range x.list {
		c.dirN = max(c.dirN, n)
		x.sizeLocked(c, n)
	}
}

// sizeLocked switches a class between having the directory and looking nodes up, if the number
// of nodes that it sees calls for it.
func (x *index) sizeLocked(c *class, n uint64) {
	if !c.lookup && c.visible > lookupAbove || c.lookup && c.visible < lookupBelow {
		c.lookup, c.switched = !c.lookup, n
	}
}

// touchLocked records change n of a node in c, and that the number of nodes in c changed by
// delta, for all classes that see c.
func (x *index) touchLocked(c *class, n uint64, delta int) {
	x.network.N = max(x.network.N, n)
	c.changed = max(c.changed, n)
	c.count += delta
	for i := range x.related.Reaching(c.number).All() {
		o := x.list[i]
		o.sight.add(classState{delta, n})
		x.sizeLocked(o, n)
	}
}

// setPolicy puts a policy into force with change n, for the present users. All nodes have to
// fetch their config and a full directory. Readers get the old policy until the new one has
// been computed.
func (x *index) setPolicy(p *policy.Policy, text string, n uint64) {
	x.mu.RLock()
	o := x.outlookLocked()
	x.mu.RUnlock()
	o.decide(p)
	x.mu.Lock()
	defer x.mu.Unlock()
	x.network.Policy = text
	x.network.N, x.network.ConfigN, x.network.FullAfter = max(x.network.N, n), max(x.network.ConfigN, n), max(x.network.FullAfter, n)
	x.adoptLocked(o, n)
}
