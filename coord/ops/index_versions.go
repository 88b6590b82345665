package ops

import (
	"weft/coord/policy"
	"weft/overlay/api"
	"weft/overlay/cert"
)

// view is what a node may see.
type view struct {
	class     string // key of the node's class
	policy    *policy.Policy
	audience  *policy.Audience
	subject   policy.Subject
	versions  api.Versions
	classes   []string // keys of the classes that it sees
	initiates bool     // the policy lets it reach others, so it needs a directory or lookups
	lookup    bool     // it looks nodes up and has no directory
	fullAfter uint64   // a directory from before this change cannot be brought up to date by a delta
}

// view returns what a node may see now.
func (x *index) view(id cert.NodeID) (view, bool) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	e, ok := x.nodes[id]
	if !ok {
		return view{}, false
	}
	c := e.class
	v := view{class: c.key, policy: x.policy, audience: x.audience, subject: c.subject, versions: x.versionsLocked(e), initiates: c.initiates, lookup: c.lookup, fullAfter: max(x.network.FullAfter, e.classN)}
	if e.overdue {
		v.initiates, v.lookup = false, false
	}
	for o := range x.seenByLocked(e).All() {
		v.classes = append(v.classes, x.list[o].key)
	}
	return v, true
}

// rules returns the rules for what the node has to let in, and the overdue devices to which
// these rules do not apply. The caller must not change them.
func (v *view) rules() (rules []api.Rule, overdue []string) {
	rules = v.policy.RulesFor(v.subject, v.audience)
	for _, id := range v.audience.Overdue(rules) {
		overdue = append(overdue, id.String())
	}
	return rules, overdue
}

// versions returns the versions that a node should have. The relay calls it for each client, so
// it does not allocate.
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
		Config: api.Version{Epoch: epoch, N: max(x.network.ConfigN, e.configN, e.class.switched, e.class.rulesN)},
		CRL:    x.network.CRLNumber,
	}
	// Nodes that have no directory have no version of it. Names is not set here: it is the same
	// for all nodes, and a standalone relay is told once for all.
	if e.class.initiates && !e.class.lookup && !e.overdue {
		v.Directory = api.Version{Epoch: epoch, N: max(e.class.dirN, e.classN)}
	}
	return v
}

// setNodeConfigN records a change of one node's config.
func (x *index) setNodeConfigN(id cert.NodeID, n uint64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if e, ok := x.nodes[id]; ok {
		e.configN = max(e.configN, n)
		x.nodes[id] = e
	}
}

// tell records that a node has a version of its config.
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

// takeTold returns what tell has recorded since the last call.
func (x *index) takeTold() map[cert.NodeID]uint64 {
	x.mu.Lock()
	defer x.mu.Unlock()
	told := x.told
	x.told = map[cert.NodeID]uint64{}
	return told
}

// putBackTold makes the next takeTold return these values again, because they could not be stored.
func (x *index) putBackTold(told map[cert.NodeID]uint64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for id, n := range told {
		if _, ok := x.nodes[id]; ok {
			x.told[id] = max(x.told[id], n)
		}
	}
}

// knowsURLs reports whether a node has been told all addresses that the server
// has now.
func (x *index) knowsURLs(id cert.NodeID) bool {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.nodes[id].told >= x.network.URLsN
}

// behind reports whether a node has not fetched its config since its owner or tags changed.
func (x *index) behind(id cert.NodeID) bool {
	x.mu.RLock()
	defer x.mu.RUnlock()
	e := x.nodes[id]
	return e.told < e.classN
}
