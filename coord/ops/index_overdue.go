package ops

import (
	"bytes"
	"slices"

	"weft/coord/policy"
	"weft/coord/store"
	"weft/overlay/cert"
)

// setOverdue notes which devices of a user have to be signed in again, as of change n. They
// see nothing, and the devices that the user reaches have other rules. Who sees the user's
// devices, and whom the others of that user see, stays as it was.
func (x *index) setOverdue(userID string, ids []cert.NodeID, n uint64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	flip := func(id cert.NodeID, overdue bool) {
		if e, ok := x.nodes[id]; ok && e.overdue != overdue {
			e.overdue = overdue
			e.configN, e.classN = max(e.configN, n), max(e.classN, n) // it begins anew with the directory
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

// reachedBy returns the classes whose rules name one of some users, or may.
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
