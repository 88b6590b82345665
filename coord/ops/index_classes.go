package ops

import (
	"slices"

	"weft/coord/policy"
	"weft/coord/store"
)

// Above this many visible nodes a node asks by name instead of holding the
// directory; below the lower bound it holds the directory again.
const (
	lookupAbove = 1000
	lookupBelow = 800
)

// class is all nodes of one owner with the same tags: policy sees no difference
// between them.
type class struct {
	// constant
	key    string
	userID string
	number int

	subject policy.Subject // its groups and whether it is suspended change

	classState
	sight
	lookup   bool
	switched uint64 // change at which lookup flipped
	rulesN   uint64 // change at which other devices that reach it became overdue, or were signed in
}

// classState is what there is of a class.
type classState struct {
	count   int
	changed uint64 // last change in it
}

// sight is what a class may see.
type sight struct {
	initiates bool
	visible   int    // nodes that it sees
	dirN      uint64 // last change that it sees
}

// makeClassLocked returns the class of this key, which is not related to any
// if it is new.
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

// subjectLocked is what policies see of a user's devices with these tags.
func (x *index) subjectLocked(userID string, tags []string) policy.Subject {
	p := x.people[userID]
	return policy.Subject{User: x.users[userID], Tags: tags, Groups: p.Groups, Suspended: p.Suspended}
}

// classLocked returns the class of this key, related to all others.
func (x *index) classLocked(key string) *class {
	c := x.makeClassLocked(key)
	x.relateLocked()
	return c
}

// relateLocked relates the classes that are not yet.
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

// add notes a class that is seen, or what came to it.
func (s *sight) add(c classState) {
	s.visible += c.count
	s.dirN = max(s.dirN, c.changed)
}

// outlook is what a policy makes of the classes that there were at some time.
type outlook struct {
	policy   *policy.Policy
	list     []*class
	states   []classState     // of list, at that time
	subjects []policy.Subject // likewise
	people   policy.People
	audience *policy.Audience
	related  *policy.Classes
	sights   []sight
}

// outlookLocked returns one of the classes that there are, to be decided.
func (x *index) outlookLocked() *outlook {
	o := &outlook{list: slices.Clip(x.list), states: make([]classState, len(x.list)), subjects: make([]policy.Subject, len(x.list)), people: x.peopleLocked()}
	for i, c := range x.list {
		o.states[i], o.subjects[i] = c.classState, x.subjectLocked(c.userID, c.subject.Tags)
	}
	return o
}

// decide works out who sees whom. It needs no lock.
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

// adoptLocked puts a decided outlook into force as of change n. What has
// changed in the classes since it was made is added.
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

// sizeLocked switches a class between holding the directory and looking up.
func (x *index) sizeLocked(c *class, n uint64) {
	if !c.lookup && c.visible > lookupAbove || c.lookup && c.visible < lookupBelow {
		c.lookup, c.switched = !c.lookup, n
	}
}

// touchLocked notes that something in c that others see changed.
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

// setPolicy puts a policy into force as of change n, for the people that there are now:
// everybody fetches anew.
// Until it is worked out readers find the one before.
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
