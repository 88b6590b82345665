package ops

import (
	"maps"
	"slices"

	"weft/overlay/api"
	"weft/overlay/cert"
)

// setAliases sets the former names of a node. The caller must not change list afterwards.
func (x *index) setAliases(id cert.NodeID, list []api.Alias) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if len(list) == 0 {
		delete(x.aliases, id)
		return
	}
	x.aliases[id] = list
}

// aliasesOf returns the former names of a node. The caller must not change the slice.
func (x *index) aliasesOf(id cert.NodeID) []api.Alias {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.aliases[id]
}

// setWildcard sets whether a node answers for all names below its own. name is the node's name,
// "" if it does not.
func (x *index) setWildcard(id cert.NodeID, name string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if name == "" {
		delete(x.wildcards, id)
		return
	}
	x.wildcards[id] = name
}

// visibleWildcards returns the names of the devices that a node sees and that answer for all
// names below their own, sorted, at most limit.
func (x *index) visibleWildcards(id cert.NodeID, limit int) []string {
	x.mu.RLock()
	defer x.mu.RUnlock()
	list := []string{}
	me, ok := x.nodes[id]
	if !ok || len(x.wildcards) == 0 {
		return list
	}
	sees := x.seenByLocked(me)
	for other, name := range x.wildcards {
		if e, ok := x.nodes[other]; ok && (other == id || sees.Has(e.class.number)) {
			list = append(list, name)
		}
	}
	slices.Sort(list)
	return list[:min(len(list), limit)]
}

// wildcardNames is visibleWildcards, but for the zero id it returns those of all devices.
func (x *index) wildcardNames(id cert.NodeID, limit int) []string {
	if !id.IsZero() {
		return x.visibleWildcards(id, limit)
	}
	x.mu.RLock()
	defer x.mu.RUnlock()
	list := slices.Sorted(maps.Values(x.wildcards))
	return list[:min(len(list), limit)]
}

// setNamesN records a change of the addresses to which names lead.
func (x *index) setNamesN(n uint64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.network.NamesN = max(x.network.NamesN, n)
}

// namesVersion returns the version of all names of the network and their addresses.
func (x *index) namesVersion() api.Version {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return api.Version{Epoch: x.network.Epoch, N: x.network.NamesN}
}
