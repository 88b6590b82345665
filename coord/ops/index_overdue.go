package ops

import (
	"bytes"
	"slices"

	"weft/coord/policy"
	"weft/coord/store"
	"weft/overlay/cert"
)

// setOverdue sets which devices of a user are overdue, with change n. Overdue devices see no
// other devices, and the rules of the devices that the user may reach change. Nothing changes
// for what the user's other devices see, and for which devices see the user's.
func (x *index) setOverdue(userID string, ids []cert.NodeID, n uint64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	flip := func(id cert.NodeID, overdue bool) {
		if e, ok := x.nodes[id]; ok && e.overdue != overdue {
			e.overdue = overdue
			e.configN, e.classN = max(e.configN, n), max(e.classN, n) // so that it fetches a full directory
			x.nodes[id] = e
		}
	}
	for _, id := range x.overdue[userID] {
		if !slices.Contains(ids, id) {
			flip(id, false)
		}
	}
	for _, id := range ids {
		flip(id, true)
	}
	if len(ids) == 0 {
		delete(x.overdue, userID)
	} else {
		x.overdue[userID] = ids
	}
	x.audience = x.policy.Audience(x.peopleLocked())
	x.network.N = max(x.network.N, n)
	for _, c := range x.reachedLocked(userID) {
		c.rulesN = max(c.rulesN, n)
	}
}

// reachedBy returns the keys of the classes that devices of these users may reach, and whose
// rules may therefore name these users.
func (x *index) reachedBy(userIDs []string) (keys []string) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	had := map[*class]bool{}
	for _, id := range userIDs {
		for _, c := range x.reachedLocked(id) {
			if !had[c] {
				had[c] = true
				keys = append(keys, c.key)
			}
		}
	}
	return keys
}

func (x *index) reachedLocked(userID string) (list []*class) {
	c := x.classes[store.Class(userID, "")]
	if c == nil {
		return nil
	}
	for o := range x.related.Reached(c.number).All() {
		list = append(list, x.list[o])
	}
	return list
}

// seenByLocked returns the numbers of the classes that a device sees.
func (x *index) seenByLocked(e entry) policy.Set {
	if e.overdue {
		return nil
	}
	return x.related.Reached(e.class.number)
}

func compareIDs(a, b cert.NodeID) int { return bytes.Compare(a[:], b[:]) }
