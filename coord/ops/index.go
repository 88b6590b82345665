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

// index holds nodes in memory, so that a relay with many clients can read versions at
// almost no cost: a few words for each node, and one class for each distinct pair of
// owner and tags. Policy depends only on the class, so who sees whom is decided between
// classes, and a change touches the classes that see it instead of a list of nodes.
//
// All methods may be called from many goroutines, but setPolicy from one at a
// time. Changes come in the order of their numbers (store.Tx.After). A new
// policy is worked out without the lock: nobody waits for it.
type index struct {
	mu      sync.RWMutex // guards the following
	network store.Network
	policy  *policy.Policy
	users   map[string]string        // id -> name
	people  map[string]policy.Person // by id of the user, without Overdue
	overdue map[string][]cert.NodeID // by id of the user, sorted; what it holds is never changed
	// audience is whom the policy lets in, of these people and tags.
	audience *policy.Audience
	tags     map[string]bool // of all classes, also those that no device has any more
	nodes    map[cert.NodeID]entry
	classes  map[string]*class
	list     []*class               // by number; only appended to
	related  *policy.Classes        // list, as policy relates it
	relays   []store.Relay          // replaced as a whole
	told     map[cert.NodeID]uint64 // what is to be stored of entry.told
	// Former names by the node that they lead to, and the devices that answer
	// for every name below theirs. What they hold is never changed.
	aliases   map[cert.NodeID][]api.Alias
	wildcards map[cert.NodeID]string // name
}

type entry struct {
	class     *class
	configN   uint64
	told      uint64 // change of the config that it holds
	classN    uint64 // change at which it came into its class: it holds the directory of another one from before
	created   int64  // unix seconds
	seen      int64  // as of the start of the server, 0 for never
	ephemeral bool
	overdue   bool                  // it sees nothing
	key       unique.Handle[string] // id of the key that it joined with, shared by all of that key
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

// put notes a node that was made or changed at change n.
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

// setUser notes a user, whose name is "" if it was deleted. Who sees whom follows with
// setPolicy.
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

// setPeople notes all people. Who sees whom follows with setPolicy.
func (x *index) setPeople(users map[string]string, people map[string]policy.Person) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.users, x.people = users, people
}

// peopleLocked are the people as policies look at them.
func (x *index) peopleLocked() policy.People {
	p := policy.People{Users: make(map[string]policy.Person, len(x.users)), Tags: slices.Collect(maps.Keys(x.tags))}
	for id, name := range x.users {
		u := x.people[id]
		u.Overdue = x.overdue[id]
		p.Users[name] = u
	}
	return p
}

// namesEach reports whether rules would have to name a user that is new, and one of these
// tags if no device carried it before.
func (x *index) namesEach(tags []string) bool {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.audience.NamesEach() && (len(tags) == 0 || slices.ContainsFunc(tags, func(t string) bool { return !x.tags[t] }))
}

// setN notes the last change, of whatever it was.
func (x *index) setN(n uint64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.network.N = max(x.network.N, n)
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

// reaches reports whether policy lets a node of class from reach one of class to.
func (x *index) reaches(from cert.NodeID, to string) bool {
	x.mu.RLock()
	defer x.mu.RUnlock()
	e, ok := x.nodes[from]
	c := x.classes[to]
	return ok && c != nil && !e.overdue && x.policy.Reaches(e.class.subject, c.subject)
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
	d, _ := x.device(id)
	d.kind, d.id = "device", id.String()
	return d.target
}

// indexed is what followers are told of a node, and who may be.
type indexed struct {
	target
	keyID string
}

// device returns what followers are told of a node. Its target has no id, which would be made
// for each event.
func (x *index) device(id cert.NodeID) (indexed, bool) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	e, ok := x.nodes[id]
	if !ok {
		return indexed{}, false
	}
	return indexed{target{kind: "device", owner: e.class.userID, tags: e.class.subject.Tags}, e.key.Value()}, true
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
