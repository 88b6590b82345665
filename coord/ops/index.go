package ops

import (
	"maps"
	"slices"
	"sync"
	"time"

	"weft/coord/policy"
	"weft/coord/store"
	"weft/overlay/api"
	"weft/overlay/cert"
)

// Above this many visible nodes a node asks by name instead of holding the
// directory; below the lower bound it holds the directory again.
const (
	lookupAbove = 1000
	lookupBelow = 800
)

// index is what the server keeps in memory so that a relay with many clients
// can ask for versions at no cost: a few words per node, and one class per
// distinct pair of owner and tags. Policy looks at classes only, so who sees
// whom is a question about classes, and a change touches the classes that see
// it instead of a list of nodes.
//
// All methods may be called from many goroutines, but setPolicy from one at a
// time. Changes come in the order of their numbers (store.Tx.After). A new
// policy is worked out without the lock: nobody waits for it.
type index struct {
	mu      sync.RWMutex // guards the following
	network store.Network
	policy  *policy.Policy
	users   map[string]string // id -> name
	nodes   map[cert.NodeID]entry
	classes map[string]*class
	list    []*class               // by number; only appended to
	related *policy.Classes        // list, as policy relates it
	relays  []store.Relay          // replaced as a whole
	told    map[cert.NodeID]uint64 // what is to be stored of entry.told
	// Former names by the node that they lead to, and the devices that answer
	// for every name below theirs. What they hold is never changed.
	aliases   map[cert.NodeID][]api.Alias
	wildcards map[cert.NodeID]string // name
}

type entry struct {
	class     *class
	configN   uint64
	told      uint64 // change of the config that it holds
	created   int64  // unix seconds
	seen      int64  // as of the start of the server, 0 for never
	ephemeral bool
}

type class struct {
	// constant
	key     string
	userID  string
	subject policy.Subject
	number  int

	classState
	sight
	lookup   bool
	switched uint64 // change at which lookup flipped
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

func newIndex(n store.Network, p *policy.Policy) *index {
	return &index{network: n, policy: p, related: p.Relate(nil), users: map[string]string{}, nodes: map[cert.NodeID]entry{}, told: map[cert.NodeID]uint64{}, classes: map[string]*class{},
		aliases: map[cert.NodeID][]api.Alias{}, wildcards: map[cert.NodeID]string{}}
}

// load fills the index from the database.
func (x *index) load(r *store.Reader) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	users, err := r.Users(x.network.ID)
	if err != nil {
		return err
	}
	for _, u := range users {
		x.users[u.ID] = u.Name
	}
	if x.relays, err = r.Relays(x.network.ID); err != nil {
		return err
	}
	aliases, err := r.Aliases(x.network.ID, nil)
	if err != nil {
		return err
	}
	for _, a := range aliases {
		x.aliases[a.NodeID] = append(x.aliases[a.NodeID], api.Alias{Name: a.Name, Until: a.Until})
	}
	wildcards, err := r.Wildcards(x.network.ID)
	if err != nil {
		return err
	}
	for _, w := range wildcards {
		x.wildcards[w.ID] = w.Name
	}
	versions, err := r.ClassVersions(x.network.ID)
	if err != nil {
		return err
	}
	err = r.EachBrief(x.network.ID, func(b store.Brief) error {
		c := x.makeClassLocked(b.Class)
		c.count++
		x.nodes[b.ID] = entry{class: c, configN: b.ConfigN, told: b.ToldN, created: b.Created.Unix(), seen: unixOrZero(b.Seen), ephemeral: b.Ephemeral}
		return nil
	})
	if err != nil {
		return err
	}
	for key, n := range versions {
		x.makeClassLocked(key).changed = n
	}
	o := x.outlookLocked()
	o.decide(x.policy)
	x.adoptLocked(o, 0)
	return nil
}

// makeClassLocked returns the class of this key, which is not related to any
// if it is new.
func (x *index) makeClassLocked(key string) *class {
	if c := x.classes[key]; c != nil {
		return c
	}
	userID, tags := store.ClassOf(key)
	c := &class{key: key, userID: userID, subject: policy.Subject{User: x.users[userID], Tags: tags}, number: len(x.list)}
	x.classes[key] = c
	x.list = append(x.list, c)
	return c
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
	policy  *policy.Policy
	list    []*class
	states  []classState // of list, at that time
	related *policy.Classes
	sights  []sight
}

// outlookLocked returns one of the classes that there are, to be decided.
func (x *index) outlookLocked() *outlook {
	o := &outlook{list: slices.Clip(x.list), states: make([]classState, len(x.list))}
	for i, c := range x.list {
		o.states[i] = c.classState
	}
	return o
}

// decide works out who sees whom. It needs no lock.
func (o *outlook) decide(p *policy.Policy) {
	subjects := make([]policy.Subject, len(o.list))
	for i, c := range o.list {
		subjects[i] = c.subject
	}
	o.policy, o.related, o.sights = p, p.Relate(subjects), make([]sight, len(subjects))
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
	x.policy, x.related = o.policy, o.related
	for i, c := range o.list {
		c.sight = o.sights[i]
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

// put notes a node that was made or changed at change n.
func (x *index) put(node store.Node) {
	x.mu.Lock()
	defer x.mu.Unlock()
	e, known := x.nodes[node.ID]
	delta := 0
	if !known {
		e = entry{class: x.classLocked(node.Class), told: node.N, created: node.Created.Unix(), ephemeral: node.Ephemeral}
		delta = 1
	}
	e.configN = node.ConfigN
	x.nodes[node.ID] = e
	x.touchLocked(e.class, node.N, delta)
	x.sizeLocked(e.class, node.N) // a new class may see many, and not itself
}

// remove notes a node that was deleted at change n.
func (x *index) remove(id cert.NodeID, n uint64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	e, ok := x.nodes[id]
	if !ok {
		return
	}
	delete(x.nodes, id)
	delete(x.aliases, id)
	delete(x.wildcards, id)
	x.touchLocked(e.class, n, -1)
}

// setCRL notes a new revocation list.
func (x *index) setCRL(number uint64, der []byte) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.network.CRLNumber, x.network.CRL = number, der
}

// setUser notes a new user.
func (x *index) setUser(id, name string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.users[id] = name
}

// setPolicy puts a policy into force as of change n: everybody fetches anew.
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

// setRelays notes the relays as of change n of everybody's config.
func (x *index) setRelays(relays []store.Relay, n uint64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.relays = relays
	x.network.N, x.network.ConfigN = max(x.network.N, n), max(x.network.ConfigN, n)
}

// setConfigN notes a change of everybody's config.
func (x *index) setConfigN(n uint64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.network.N, x.network.ConfigN = max(x.network.N, n), max(x.network.ConfigN, n)
}

// setNamesN notes a change of what names lead to.
func (x *index) setNamesN(n uint64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.network.NamesN = max(x.network.NamesN, n)
}

// setAliases notes the former names of a node; the list is not changed later.
func (x *index) setAliases(id cert.NodeID, list []api.Alias) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if len(list) == 0 {
		delete(x.aliases, id)
		return
	}
	x.aliases[id] = list
}

// aliasesOf returns the former names of a node; they are not to be changed.
func (x *index) aliasesOf(id cert.NodeID) []api.Alias {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.aliases[id]
}

// setWildcard notes whether a node answers for every name below its own; name
// is "" when not.
func (x *index) setWildcard(id cert.NodeID, name string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if name == "" {
		delete(x.wildcards, id)
		return
	}
	x.wildcards[id] = name
}

// setNodeConfigN notes a change of one node's config.
func (x *index) setNodeConfigN(id cert.NodeID, n uint64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if e, ok := x.nodes[id]; ok {
		e.configN = max(e.configN, n)
		x.nodes[id] = e
	}
}

// visibleWildcards returns the names of those devices that a node sees and
// that answer for every name below theirs, sorted, at most limit.
func (x *index) visibleWildcards(id cert.NodeID, limit int) []string {
	x.mu.RLock()
	defer x.mu.RUnlock()
	list := []string{}
	me, ok := x.nodes[id]
	if !ok || len(x.wildcards) == 0 {
		return list
	}
	sees := x.related.Reached(me.class.number)
	for other, name := range x.wildcards {
		if e, ok := x.nodes[other]; ok && (other == id || sees.Has(e.class.number)) {
			list = append(list, name)
		}
	}
	slices.Sort(list)
	return list[:min(len(list), limit)]
}

// wildcardNames is visibleWildcards, with those of all devices for the zero id.
func (x *index) wildcardNames(id cert.NodeID, limit int) []string {
	if !id.IsZero() {
		return x.visibleWildcards(id, limit)
	}
	x.mu.RLock()
	defer x.mu.RUnlock()
	list := slices.Sorted(maps.Values(x.wildcards))
	return list[:min(len(list), limit)]
}

// allRelays returns the relays that run alone; they are not to be changed.
func (x *index) allRelays() []store.Relay {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.relays
}

// relay returns one of them.
func (x *index) relay(id string) (store.Relay, bool) {
	relays := x.allRelays()
	if i := slices.IndexFunc(relays, func(r store.Relay) bool { return r.ID == id }); i >= 0 {
		return relays[i], true
	}
	return store.Relay{}, false
}

// setFullAfter notes how far back deltas reach.
func (x *index) setFullAfter(n uint64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.network.FullAfter = max(x.network.FullAfter, n)
}

// info returns the network's row as memory has it.
func (x *index) info() store.Network {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.network
}

// has reports whether a node exists, and whether it carries tags.
func (x *index) has(id cert.NodeID) (tagged, ok bool) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	e, ok := x.nodes[id]
	return ok && len(e.class.subject.Tags) > 0, ok
}

// createdBefore reports whether a node was there at some time, to the second.
func (x *index) createdBefore(id cert.NodeID, at time.Time) bool {
	x.mu.RLock()
	defer x.mu.RUnlock()
	e, ok := x.nodes[id]
	return ok && e.created <= at.Unix()
}

// view is what a node of some class may see.
type view struct {
	class     string // its own
	policy    *policy.Policy
	subject   policy.Subject
	versions  api.Versions
	classes   []string
	initiates bool
	lookup    bool
	fullAfter uint64
}

// view returns what a node may see, as of now.
func (x *index) view(id cert.NodeID) (view, bool) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	e, ok := x.nodes[id]
	if !ok {
		return view{}, false
	}
	c := e.class
	v := view{class: c.key, policy: x.policy, subject: c.subject, versions: x.versionsLocked(e), initiates: c.initiates, lookup: c.lookup, fullAfter: x.network.FullAfter}
	for o := range x.related.Reached(c.number).All() {
		v.classes = append(v.classes, x.list[o].key)
	}
	return v, true
}

// rules returns what the node lets in. They are not to be changed.
func (v *view) rules() []api.Rule { return v.policy.RulesFor(v.subject) }

// namesVersion returns the version of what all names of the network lead to.
func (x *index) namesVersion() api.Version {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return api.Version{Epoch: x.network.Epoch, N: x.network.NamesN}
}

// versions returns what a node should hold. It is called by the relay for
// each client: no allocation.
func (x *index) versions(id cert.NodeID) (api.Versions, bool) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	e, ok := x.nodes[id]
	if !ok {
		return api.Versions{}, false
	}
	return x.versionsLocked(e), true
}

func (x *index) versionsLocked(e entry) api.Versions {
	epoch := x.network.Epoch
	v := api.Versions{
		Config: api.Version{Epoch: epoch, N: max(x.network.ConfigN, e.configN, e.class.switched)},
		CRL:    x.network.CRLNumber,
	}
	// Who holds no directory is never behind on it. Names, one number for all,
	// is not in the versions of each: a relay that runs alone is told it once.
	if e.class.initiates && !e.class.lookup {
		v.Directory = api.Version{Epoch: epoch, N: e.class.dirN}
	}
	return v
}

// tell notes that a node holds this version of its config.
func (x *index) tell(id cert.NodeID, v api.Version) {
	x.mu.Lock()
	defer x.mu.Unlock()
	e, ok := x.nodes[id]
	if !ok || v.Epoch != x.network.Epoch {
		return
	}
	if n := min(v.N, x.versionsLocked(e).Config.N); n > e.told {
		e.told = n
		x.nodes[id], x.told[id] = e, n
	}
}

// takeTold returns what tell noted since the last call.
func (x *index) takeTold() map[cert.NodeID]uint64 {
	x.mu.Lock()
	defer x.mu.Unlock()
	told := x.told
	x.told = map[cert.NodeID]uint64{}
	return told
}

// knowsURLs reports whether a node has been told all addresses that the server
// has now.
func (x *index) knowsURLs(id cert.NodeID) bool {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.nodes[id].told >= x.network.URLsN
}

// reaches reports whether policy lets a node of class from reach one of class to.
func (x *index) reaches(from cert.NodeID, to string) bool {
	x.mu.RLock()
	defer x.mu.RUnlock()
	e, ok := x.nodes[from]
	c := x.classes[to]
	return ok && c != nil && x.policy.Reaches(e.class.subject, c.subject)
}

// counts returns how many nodes there are: of a user, and in all.
func (x *index) counts(userID string) (own, all int) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	for _, c := range x.classes {
		if c.userID == userID {
			own += c.count
		}
	}
	return own, len(x.nodes)
}

// countWhere counts the nodes whose owner and tags are seen: all of them, those that are
// among online, and those that have not been told all addresses that the server has.
func (x *index) countWhere(seen func(userID string, tags []string) bool, online []cert.NodeID) (all, connected, unaware int) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	sees := make(map[*class]bool, len(x.classes))
	for _, c := range x.classes {
		if sees[c] = seen(c.userID, c.subject.Tags); sees[c] {
			all += c.count
		}
	}
	for _, id := range online {
		if e, ok := x.nodes[id]; ok && sees[e.class] {
			connected++
		}
	}
	if x.network.URLsN > 0 {
		for _, e := range x.nodes {
			if e.told < x.network.URLsN && sees[e.class] {
				unaware++
			}
		}
	}
	return all, connected, unaware
}

// targetOf is a node as authorization looks at it.
func (x *index) targetOf(id cert.NodeID) target {
	x.mu.RLock()
	defer x.mu.RUnlock()
	t := target{kind: "device", id: id.String()}
	if e, ok := x.nodes[id]; ok {
		t.owner, t.tags = e.class.userID, e.class.subject.Tags
	}
	return t
}

// ephemeral returns the ephemeral nodes, and when each was made or last seen
// as far as was known at the start.
func (x *index) ephemeral() map[cert.NodeID]time.Time {
	x.mu.RLock()
	defer x.mu.RUnlock()
	m := map[cert.NodeID]time.Time{}
	for id, e := range x.nodes {
		if e.ephemeral {
			m[id] = time.Unix(max(e.created, e.seen), 0)
		}
	}
	return m
}

func unixOrZero(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.Unix()
}
