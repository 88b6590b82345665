package ops

import (
	"maps"
	"slices"
	"sync"
	"time"
	"unique"

	"weft/coord/policy"
	"weft/coord/store"
	"weft/overlay/api"
	"weft/overlay/cert"
)

// index holds a few words about each node in memory, so that a relay with many clients can read
// their versions at almost no cost. Nodes with the same owner and the same tags are in the same
// class. The policy depends only on the class, so the index decides between classes which nodes
// see which, and a change of a node updates the classes that see it instead of a list of nodes.
//
// All methods may be called from many goroutines, except setPolicy, which only one goroutine at
// a time may call. Changes arrive in the order of their numbers (store.Tx.After). The effects of
// a new policy are computed without holding the lock, so that readers need not wait.
type index struct {
	mu      sync.RWMutex // guards the following
	network store.Network
	policy  *policy.Policy
	users   map[string]string        // names by user id
	people  map[string]policy.Person // by user id, without Overdue
	overdue map[string][]cert.NodeID // by user id, sorted; the slices are immutable
	// audience is what the policy means for the present people and tags: see
	// policy.Policy.Audience.
	audience *policy.Audience
	tags     map[string]bool // of all classes, also of those that have no devices any more
	nodes    map[cert.NodeID]entry
	classes  map[string]*class
	list     []*class               // by number; only appended to
	related  *policy.Classes        // which classes of list reach which
	relays   []store.Relay          // immutable: a change makes a new slice
	told     map[cert.NodeID]uint64 // values of entry.told that have to be stored
	// aliases are the former names of nodes, and wildcards the names of the nodes that answer
	// for all names below their own. The slices are immutable.
	aliases   map[cert.NodeID][]api.Alias
	wildcards map[cert.NodeID]string
}

// entry is a node. Fields ending in N are numbers of changes (store.Change.N).
type entry struct {
	class     *class
	configN   uint64 // last change of this node's config
	told      uint64 // up to which change the node has its config
	classN    uint64 // when the node came into its class: if it has an older directory, that of another class, it needs a full one
	created   int64  // unix seconds
	seen      int64  // unix seconds, as of the start of the server, 0 for never
	ephemeral bool
	overdue   bool                  // the node sees no other nodes
	key       unique.Handle[string] // id of the key with which the node joined
}

func newIndex(n store.Network, p *policy.Policy) *index {
	return &index{network: n, policy: p, related: p.Relate(nil), users: map[string]string{}, people: map[string]policy.Person{}, overdue: map[string][]cert.NodeID{}, audience: p.Audience(policy.People{}), tags: map[string]bool{}, nodes: map[cert.NodeID]entry{}, told: map[cert.NodeID]uint64{}, classes: map[string]*class{},
		aliases: map[cert.NodeID][]api.Alias{}, wildcards: map[cert.NodeID]string{}}
}

// load fills the index from the database.
func (x *index) load(r *store.Reader) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	var err error
	if x.users, x.people, err = peopleOf(r, x.network.ID); err != nil {
		return err
	}
	if x.relays, err = r.Relays(x.network.ID); err != nil {
		return err
	}
	aliases, err := r.Aliases(x.network.ID, nil)
	if err != nil {
		return err
	}
	for _, a := range aliases {
		x.aliases[a.NodeID] = append(x.aliases[a.NodeID], a.Alias)
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
		x.nodes[b.ID] = entry{class: c, configN: b.ConfigN, told: b.ToldN, classN: b.ClassN, created: b.Created.Unix(), seen: unixOrZero(b.Seen), ephemeral: b.Ephemeral, overdue: b.Overdue, key: unique.Make(b.KeyID)}
		if b.Overdue {
			x.overdue[c.userID] = append(x.overdue[c.userID], b.ID)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for key, n := range versions {
		x.makeClassLocked(key).changed = n
	}
	for _, ids := range x.overdue {
		slices.SortFunc(ids, compareIDs)
	}
	o := x.outlookLocked()
	o.decide(x.policy)
	x.adoptLocked(o, 0)
	return nil
}

// put adds a node that has joined, or updates one that was changed. node.N is the change.
func (x *index) put(node store.Node) {
	x.mu.Lock()
	defer x.mu.Unlock()
	e, known := x.nodes[node.ID]
	delta, tags := 0, len(x.tags)
	if !known {
		e = entry{class: x.classLocked(node.Class), told: node.N, created: node.Created.Unix(), ephemeral: node.Ephemeral}
		delta = 1
	} else if e.class.key != node.Class {
		x.touchLocked(e.class, node.N, -1)
		e.class, delta = x.classLocked(node.Class), 1
	}
	if len(x.tags) > tags && x.audience.NamesEach() {
		x.network.ConfigN = max(x.network.ConfigN, node.N)
		x.audience = x.policy.Audience(x.peopleLocked())
	}
	e.configN, e.classN, e.key = node.ConfigN, node.ClassN, unique.Make(node.KeyID)
	x.nodes[node.ID] = e
	x.touchLocked(e.class, node.N, delta)
	x.sizeLocked(e.class, node.N) // touchLocked does not do it for a new class that does not see itself
}

// remove removes a node that was deleted by change n.
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

// setCRL sets the revocation list.
func (x *index) setCRL(number uint64, der []byte) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.network.CRLNumber, x.network.CRL = number, der
}

// setUser sets a user, or removes the user if name is "". What the user's devices see changes
// only with setPolicy.
func (x *index) setUser(id, name string, p policy.Person) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if name == "" {
		delete(x.users, id)
		delete(x.people, id)
	} else {
		x.users[id], x.people[id] = name, p
	}
	x.audience = x.policy.Audience(x.peopleLocked())
}

// setPeople sets all users. What their devices see changes only with setPolicy.
func (x *index) setPeople(users map[string]string, people map[string]policy.Person) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.users, x.people = users, people
}

// peopleLocked returns the users in the form that policies need.
func (x *index) peopleLocked() policy.People {
	p := policy.People{Users: make(map[string]policy.Person, len(x.users)), Tags: slices.Collect(maps.Keys(x.tags))}
	for id, name := range x.users {
		u := x.people[id]
		u.Overdue = x.overdue[id]
		p.Users[name] = u
	}
	return p
}

// namesEach reports whether the nodes' rules have to name each user and tag, so that they would
// change with a new user, or if tags are given, with one of them that no device has had.
func (x *index) namesEach(tags []string) bool {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.audience.NamesEach() && (len(tags) == 0 || slices.ContainsFunc(tags, func(t string) bool { return !x.tags[t] }))
}

// setN sets the number of the last change of any kind.
func (x *index) setN(n uint64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.network.N = max(x.network.N, n)
}

// setRelays sets the relays, with change n, which changes the config of all nodes.
func (x *index) setRelays(relays []store.Relay, n uint64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.relays = relays
	x.network.N, x.network.ConfigN = max(x.network.N, n), max(x.network.ConfigN, n)
}

// setConfigN records change n, which changes the config of all nodes.
func (x *index) setConfigN(n uint64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.network.N, x.network.ConfigN = max(x.network.N, n), max(x.network.ConfigN, n)
}

// allRelays returns the standalone relays. The caller must not change the slice.
func (x *index) allRelays() []store.Relay {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.relays
}

// relay returns the standalone relay with an id.
func (x *index) relay(id string) (store.Relay, bool) {
	relays := x.allRelays()
	if i := slices.IndexFunc(relays, func(r store.Relay) bool { return r.ID == id }); i >= 0 {
		return relays[i], true
	}
	return store.Relay{}, false
}

// setFullAfter sets the change since which directory deltas can be made. A node with an older
// directory needs a full one.
func (x *index) setFullAfter(n uint64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.network.FullAfter = max(x.network.FullAfter, n)
}

// info returns the network's row as the index has it.
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

// createdBefore reports whether a node exists and had joined at a time, to the second.
func (x *index) createdBefore(id cert.NodeID, at time.Time) bool {
	x.mu.RLock()
	defer x.mu.RUnlock()
	e, ok := x.nodes[id]
	return ok && e.created <= at.Unix()
}

// reaches reports whether the policy lets node from reach nodes of class to.
func (x *index) reaches(from cert.NodeID, to string) bool {
	x.mu.RLock()
	defer x.mu.RUnlock()
	e, ok := x.nodes[from]
	c := x.classes[to]
	return ok && c != nil && !e.overdue && x.policy.Reaches(e.class.subject, c.subject)
}

// counts returns the number of nodes of a user, and of all nodes.
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

// countWhere counts the nodes for whose owner and tags seen returns true: all of them, those
// that are in online, and those that have not been told all present addresses of the server.
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

// targetOf returns a node as a target of operations, for authorization.
func (x *index) targetOf(id cert.NodeID) target {
	d, _ := x.device(id)
	d.kind, d.id = "device", id.String()
	return d.target
}

// indexed is what events need of a node: the target decides who may see it.
type indexed struct {
	target
	keyID string
}

// device returns what events need of a node. The target has no id, because formatting one for
// each event would cost time.
func (x *index) device(id cert.NodeID) (indexed, bool) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	e, ok := x.nodes[id]
	if !ok {
		return indexed{}, false
	}
	return indexed{target{kind: "device", owner: e.class.userID, tags: e.class.subject.Tags}, e.key.Value()}, true
}

// ephemeral returns the ephemeral nodes, and when each joined or, as of the start of the
// server, was last seen.
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
