package ops

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"weft/coord/policy"
	"weft/coord/store"
	"weft/overlay/api"
	"weft/overlay/cert"
)

// naiveIndex is what the index must agree with: it asks the policy about each
// pair of classes, and keeps the answers.
type naiveIndex struct {
	network store.Network
	policy  *policy.Policy
	nodes   map[cert.NodeID]*naiveNode
	classes map[string]*naiveClass
}

type naiveNode struct {
	class   *naiveClass
	configN uint64
}

type naiveClass struct {
	key          string
	subject      policy.Subject
	count        int
	changed      uint64
	initiates    bool
	sees, seenBy []*naiveClass
	visible      int
	dirN         uint64
	lookup       bool
	switched     uint64
}

func (x *naiveIndex) class(key string) *naiveClass {
	if c := x.classes[key]; c != nil {
		return c
	}
	user, tags := store.ClassOf(key)
	c := &naiveClass{key: key, subject: policy.Subject{User: userName(user), Tags: tags}}
	x.classes[key] = c
	x.decide(c)
	for _, o := range x.classes {
		x.pair(c, o)
		if o != c {
			x.pair(o, c)
		}
	}
	return c
}

func (x *naiveIndex) decide(c *naiveClass) {
	c.initiates = x.policy.Initiates(c.subject)
	c.sees, c.seenBy = nil, nil
	c.visible, c.dirN = 0, max(1, x.network.FullAfter)
}

func (x *naiveIndex) pair(from, to *naiveClass) {
	if x.policy.Reaches(from.subject, to.subject) {
		from.sees, to.seenBy = append(from.sees, to), append(to.seenBy, from)
		from.visible += to.count
		from.dirN = max(from.dirN, to.changed)
	}
}

func (x *naiveIndex) size(c *naiveClass, n uint64) {
	if !c.lookup && c.visible > lookupAbove || c.lookup && c.visible < lookupBelow {
		c.lookup, c.switched = !c.lookup, n
	}
}

func (x *naiveIndex) touch(c *naiveClass, n uint64, delta int) {
	x.network.N = max(x.network.N, n)
	c.changed = max(c.changed, n)
	c.count += delta
	for _, o := range c.seenBy {
		o.visible += delta
		o.dirN = max(o.dirN, n)
		x.size(o, n)
	}
}

func (x *naiveIndex) put(node store.Node) {
	delta := 0
	if x.nodes[node.ID] == nil {
		x.nodes[node.ID] = &naiveNode{class: x.class(node.Class)}
		delta = 1
	}
	e := x.nodes[node.ID]
	e.configN = node.ConfigN
	x.touch(e.class, node.N, delta)
	x.size(e.class, node.N)
}

func (x *naiveIndex) remove(id cert.NodeID, n uint64) {
	if e := x.nodes[id]; e != nil {
		delete(x.nodes, id)
		x.touch(e.class, n, -1)
	}
}

func (x *naiveIndex) setPolicy(p *policy.Policy, n uint64) {
	x.policy = p
	x.network.N, x.network.ConfigN, x.network.FullAfter = n, n, n
	for _, c := range x.classes {
		x.decide(c)
		c.dirN = max(c.dirN, n)
	}
	for _, a := range x.classes {
		for _, b := range x.classes {
			x.pair(a, b)
		}
	}
	for _, c := range x.classes {
		x.size(c, n)
	}
}

func (x *naiveIndex) versions(e *naiveNode) api.Versions {
	v := api.Versions{Config: api.Version{Epoch: x.network.Epoch, N: max(x.network.ConfigN, e.configN, e.class.switched)}}
	if e.class.initiates && !e.class.lookup {
		v.Directory = api.Version{Epoch: x.network.Epoch, N: e.class.dirN}
	}
	return v
}

// The users of these tests: their id, and their name by it.
var testUsers = []string{"a", "b", "c", "d"}

func userName(id string) string { return "name-" + id }

// smallNode is a device in one of some ten classes.
func smallNode(r *rand.Rand, i int, n uint64) store.Node {
	var tags []string
	for _, tag := range []string{"x", "y", "z"} {
		if r.IntN(4) == 0 {
			tags = append(tags, tag)
		}
	}
	node := store.Node{Class: store.Class(testUsers[r.IntN(len(testUsers))], store.JoinTags(tags)), N: n, ConfigN: n}
	binary.BigEndian.PutUint64(node.ID[:], uint64(i)+1)
	return node
}

func smallPolicy(t testing.TB, r *rand.Rand) *policy.Policy {
	some := func(of ...string) []string {
		list := []string{of[r.IntN(len(of))]}
		if r.IntN(2) == 0 {
			list = append(list, of[r.IntN(len(of))])
		}
		return list
	}
	words := []string{"tag:x", "tag:y", "tag:z", "user:name-a", "user:name-b", "user:name-c", "*"}
	p := policy.Policy{Rules: []policy.Rule{}}
	for range r.IntN(6) {
		p.Rules = append(p.Rules, policy.Rule{From: some(words...), To: some(append(words, "self")...), Ports: []string{"tcp:22"}})
	}
	if r.IntN(2) == 0 {
		p.Rules = append(p.Rules, policy.Rule{From: []string{"user:*"}, To: []string{"self"}, Ports: []string{"*"}})
	}
	text, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := policy.Parse(string(text))
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

func smallIndex(p *policy.Policy) *index {
	x := newIndex(store.Network{Epoch: 1}, p)
	for _, id := range testUsers {
		x.setUser(id, userName(id), policy.Person{})
	}
	return x
}

// A random life of the index: at each moment it says what asking the policy
// about each pair of classes would.
func TestIndexAgainstNaive(t *testing.T) {
	for seed := range uint64(10) {
		r := rand.New(rand.NewPCG(seed, 0))
		p := smallPolicy(t, r)
		x := smallIndex(p)
		m := &naiveIndex{network: x.info(), policy: p, nodes: map[cert.NodeID]*naiveNode{}, classes: map[string]*naiveClass{}}
		var alive []store.Node
		n, made := uint64(1), 0
		for step := range 40 {
			switch r.IntN(8) {
			case 0:
				n++
				p := smallPolicy(t, r)
				x.setPolicy(p, "", n)
				m.setPolicy(p, n)
			case 1:
				n++
				x.setConfigN(n)
				m.network.N, m.network.ConfigN = n, n
			case 2:
				n++
				x.setFullAfter(n - 1)
				m.network.FullAfter = n - 1
			case 3, 4: // many go, so that directories fit again
				for range min(len(alive), r.IntN(600)) {
					n++
					x.remove(alive[0].ID, n)
					m.remove(alive[0].ID, n)
					alive = alive[1:]
				}
			case 5: // one changes
				if len(alive) > 0 {
					n++
					node := alive[r.IntN(len(alive))]
					node.N = n
					x.put(node)
					m.put(node)
				}
			default:
				for range r.IntN(600) {
					n++
					node := smallNode(r, made, n)
					made++
					alive = append(alive, node)
					x.put(node)
					m.put(node)
				}
			}
			checkNaive(t, x, m)
			if t.Failed() {
				t.Fatalf("seed %d, step %d", seed, step)
			}
		}
	}
}

func checkNaive(t *testing.T, x *index, m *naiveIndex) {
	t.Helper()
	if len(x.nodes) != len(m.nodes) || len(x.classes) != len(m.classes) || len(x.list) != len(m.classes) {
		t.Errorf("%d nodes in %d (%d) classes, want %d in %d", len(x.nodes), len(x.classes), len(x.list), len(m.nodes), len(m.classes))
	}
	one := map[*naiveClass]cert.NodeID{}
	for id, e := range m.nodes {
		if got, ok := x.versions(id); !ok || got != m.versions(e) {
			t.Errorf("%s of %s: %+v, want %+v", id, e.class.key, got, m.versions(e))
		}
		one[e.class] = id
	}
	for key, c := range m.classes {
		got := x.classes[key]
		if got.visible != c.visible || got.count != c.count || got.changed != c.changed || got.dirN != c.dirN || got.initiates != c.initiates || got.lookup != c.lookup || got.switched != c.switched {
			t.Errorf("class %s: %+v, want %+v", key, got, c)
		}
		id, ok := one[c]
		if !ok {
			continue
		}
		var want []string
		for _, o := range c.sees {
			want = append(want, o.key)
		}
		slices.Sort(want)
		v, _ := x.view(id)
		if slices.Sort(v.classes); !slices.Equal(v.classes, want) {
			t.Errorf("class %s sees %q, want %q", key, v.classes, want)
		}
		for o := range m.classes {
			if got := x.reaches(id, o); got != slices.Contains(want, o) {
				t.Errorf("%s reaches %s: %v", key, o, got)
			}
		}
		ids := []cert.NodeID{{1, 2, 3}}
		var wantIDs []cert.NodeID
		for o, other := range one {
			if ids = append(ids, other, other); slices.Contains(want, o.key) {
				wantIDs = append(wantIDs, other)
			}
		}
		var gotIDs []cert.NodeID
		for _, s := range x.reached(id, ids) {
			gotIDs = append(gotIDs, s.id)
		}
		byID := func(a, b cert.NodeID) int { return slices.Compare(a[:], b[:]) }
		slices.SortFunc(wantIDs, byID)
		if slices.SortFunc(gotIDs, byID); !slices.Equal(gotIDs, wantIDs) {
			t.Errorf("%s reaches %v of %v, want %v", key, gotIDs, ids, wantIDs)
		}
	}
}

// Devices that come and go while a policy is being worked out, in classes that
// it does not know too, are seen as if they had done so before.
func TestPolicyMeanwhile(t *testing.T) {
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 1))
		before, after := smallPolicy(t, r), smallPolicy(t, r)
		x, y := smallIndex(before), smallIndex(before)
		n, made := uint64(1), 0
		live := func() {
			for range r.IntN(800) {
				n++
				if made > 0 && r.IntN(3) == 0 {
					node := smallNode(r, r.IntN(made), 0)
					x.remove(node.ID, n)
					y.remove(node.ID, n)
					continue
				}
				node := smallNode(r, made, n)
				made++
				x.put(node)
				y.put(node)
			}
		}
		live()
		n++
		at := n
		o := x.outlookLocked()
		live()
		o.decide(after)
		live()
		x.network.FullAfter, y.network.FullAfter = at, at
		x.adoptLocked(o, at)
		o = y.outlookLocked()
		o.decide(after)
		y.adoptLocked(o, at)
		live()
		for key, c := range y.classes {
			got := x.classes[key]
			if got.sight != c.sight || got.classState != c.classState || got.lookup != c.lookup || got.switched != c.switched {
				t.Errorf("seed %d: class %s: %+v, want %+v", seed, key, got, c)
			}
			if got, want := seen(x, got), seen(y, c); !slices.Equal(got, want) {
				t.Errorf("seed %d: class %s sees %q, want %q", seed, key, got, want)
			}
		}
	}
}

// seen returns the keys of the classes that c sees.
func seen(x *index, c *class) (keys []string) {
	for i := range x.related.Reached(c.number).All() {
		keys = append(keys, x.list[i].key)
	}
	slices.Sort(keys)
	return keys
}

// Policies change while devices come and go and are asked for.
func TestPolicyAtOnce(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	policies := []*policy.Policy{smallPolicy(t, r), smallPolicy(t, r), policy.Starting()}
	x := smallIndex(policies[0])
	first := smallNode(r, 0, 2)
	x.put(first)
	x.setWildcard(first.ID, "first")
	var done, readers sync.WaitGroup
	stop := make(chan struct{})
	for range 2 {
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				v, ok := x.view(first.ID)
				if rules, _ := v.rules(); !ok || len(rules) > 10 {
					t.Errorf("the first device: %v, %+v", ok, rules)
					return
				}
				x.versions(first.ID)
				x.reached(first.ID, []cert.NodeID{first.ID})
				x.reaches(first.ID, first.Class)
				x.visibleWildcards(first.ID, 10)
			}
		})
	}
	done.Go(func() {
		r := rand.New(rand.NewPCG(3, 4))
		for i := range 2000 {
			node := smallNode(r, 1+i, uint64(i)+3)
			if i%4 == 0 { // a class of its own
				node.Class += fmt.Sprintf(",t%d", i)
			}
			x.put(node)
			x.setUser("e", "name-e", policy.Person{})
			if i%3 == 0 {
				x.remove(node.ID, uint64(i)+3)
			}
		}
	})
	done.Go(func() {
		for i := range 100 {
			x.setPolicy(policies[i%len(policies)], "", uint64(i)*20+4)
		}
	})
	done.Wait()
	close(stop)
	readers.Wait()
	if x.related.Len() != len(x.list) || len(x.list) < 500 {
		t.Fatalf("%d of %d classes are related", x.related.Len(), len(x.list))
	}
	o := x.outlookLocked()
	o.decide(x.policy)
	for i, c := range x.list {
		got := c.sight
		// What was seen under the policies before stays the last change.
		if got.dirN < max(o.sights[i].dirN, x.network.FullAfter) {
			t.Errorf("class %s: at %d, and sees %d", c.key, got.dirN, o.sights[i].dirN)
		}
		if got.dirN = o.sights[i].dirN; got != o.sights[i] {
			t.Errorf("class %s: %+v, want %+v", c.key, got, o.sights[i])
		}
	}
	all := 0
	for _, c := range x.list {
		all += c.count
	}
	if own, n := x.counts(first.Class[:1]); all != n || own == 0 {
		t.Errorf("%d devices in the classes, %d in all, %d of one user", all, n, own)
	}
}

// A relay asks for the versions of each of its clients again and again.
func TestVersionsAllocateNothing(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	x := smallIndex(policy.Starting())
	node := smallNode(r, 0, 2)
	x.put(node)
	if n := testing.AllocsPerRun(100, func() { x.versions(node.ID) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// Who joins in a class of its own looks names up from the start if it sees too
// many, as a server that starts anew would say.
func TestNewClassSeesMany(t *testing.T) {
	p, err := policy.Parse(`{"rules":[{"from":["user:name-a"],"to":["tag:x"],"ports":["*"]}]}`)
	if err != nil {
		t.Fatal(err)
	}
	x := smallIndex(p)
	n := uint64(1)
	join := func(class string) cert.NodeID {
		n++
		node := store.Node{Class: class, N: n, ConfigN: n}
		binary.BigEndian.PutUint64(node.ID[:], n)
		x.put(node)
		return node.ID
	}
	for range lookupAbove + 1 {
		join(store.Class("b", store.JoinTags([]string{"x"})))
	}
	laptop := join(store.Class("a", ""))
	v, _ := x.view(laptop)
	if !v.lookup || v.versions.Config.N != n || !v.versions.Directory.IsZero() {
		t.Errorf("among %d that it sees: %+v", lookupAbove+1, v)
	}
}
