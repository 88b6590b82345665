package ops

import (
	"cmp"
	"slices"

	"weft/coord/policy"
	"weft/coord/store"
	"weft/overlay/cert"
)

// follow updates the state in memory from the table of changes. On the store's writer goroutine,
// before the commit, it reads the changes since its last call; after the commit it applies
// them. Nothing else updates the copies of rows in memory, or notifies relays and open
// consoles of changes. follow reads only the database, so a server on another machine could do
// the same.
func (s *Service) follow(tx *store.Tx) error {
	changes, err := tx.ChangesSince(s.network, s.followed)
	if err != nil || len(changes) == 0 {
		return err
	}
	slices.SortStableFunc(changes, func(a, b store.Change) int { return cmp.Compare(a.N, b.N) })
	steps := make([]func(), 0, len(changes))
	for _, c := range changes {
		step, err := s.followOne(&tx.Reader, c)
		if err != nil {
			return err
		}
		steps = append(steps, step)
	}
	last := changes[len(changes)-1].N
	tx.After(func() {
		s.followed = last
		for _, step := range steps {
			step()
		}
		s.index.setN(last)
		s.changed()
	})
	return nil
}

// followOne reads what a change needs, and returns what to do after the commit.
func (s *Service) followOne(r *store.Reader, c store.Change) (func(), error) {
	nothing := func() {}
	switch c.Kind {
	case store.DeviceJoined, store.DeviceRenamed, store.DeviceMoved, store.DeviceRenewed, store.DeviceConfig:
		id, err := cert.ParseNodeID(c.ID)
		if err != nil {
			return nil, err
		}
		node, err := r.Node(s.network, id)
		if isNotFound(err) {
			return nothing, nil // removed by a later change
		}
		if err != nil {
			return nil, err
		}
		return s.followDevice(r, c, node)
	case store.DeviceRemoved:
		return s.followRemoved(c)
	case store.ConfigChanged:
		return func() { s.index.setConfigN(c.N) }, nil
	case store.DNSChanged:
		n, err := r.DNS(s.network)
		return func() { s.names.Store(&n); s.index.setConfigN(c.N); s.index.setNamesN(c.N) }, err
	case store.RelaysChanged:
		relays, err := r.Relays(s.network)
		return func() { s.followRelays(relays, c.N) }, err
	case store.PolicyChanged:
		n, err := r.Network()
		if err != nil {
			return nil, err
		}
		p, err := policy.Stored(n.Policy)
		if err != nil {
			return nil, err
		}
		users, people, err := peopleOf(r, s.network)
		return func() { s.index.setPeople(users, people); s.index.setPolicy(p, n.Policy, c.N); s.index.setNamesN(c.N) }, err
	case store.CRLChanged:
		n, err := r.Network()
		return func() {
			s.index.setCRL(n.CRLNumber, n.CRL)
			s.relay.get().PushCRL(s.network, n.CRL, s.revoked)
			s.revoked = nil
		}, err
	case store.SignInChanged:
		now, err := r.SignIn(s.network)
		return func() { s.signIn.Store(&now) }, err
	case store.OverdueChanged:
		ids, err := r.OverdueOf(s.network, c.ID)
		return func() { s.index.setOverdue(c.ID, ids, c.N) }, err
	case store.AuditChanged:
		a, err := readAuditSettings(r, s.network)
		return func() { s.auditing.Store(a) }, err
	case store.UserChanged:
		u, err := r.User(s.network, c.ID)
		if isNotFound(err) {
			return func() { s.index.setUser(c.ID, "", policy.Person{}); s.events.setRights(store.User{ID: c.ID}) }, nil
		}
		if err != nil {
			return nil, err
		}
		groups, err := r.Groups(s.network, u.ID)
		return func() { s.index.setUser(u.ID, u.Name, personOf(u, groups)); s.events.setRights(u) }, err
	case store.HookChanged:
		w, err := r.Webhook(s.network, c.ID)
		if isNotFound(err) {
			return func() { s.hooks.remove(c.ID) }, nil
		}
		return func() { s.hooks.put(w) }, err
	}
	return nothing, nil // a kind that only newer versions of the server know
}

// peopleOf reads all users: their names, and what else policies need of them, both by id.
func peopleOf(r *store.Reader, network cert.NetworkID) (names map[string]string, people map[string]policy.Person, err error) {
	users, err := r.Users(network)
	if err != nil {
		return nil, nil, err
	}
	groups, err := r.GroupsOf(network)
	if err != nil {
		return nil, nil, err
	}
	names, people = make(map[string]string, len(users)), make(map[string]policy.Person, len(users))
	for _, u := range users {
		names[u.ID], people[u.ID] = u.Name, personOf(u, groups[u.ID])
	}
	return names, people, nil
}

func personOf(u store.User, groups []string) policy.Person {
	return policy.Person{Groups: groups, Suspended: u.Suspended != nil}
}

func (s *Service) followDevice(r *store.Reader, c store.Change, node store.Node) (func(), error) {
	switch c.Kind {
	case store.DeviceConfig:
		return func() {
			s.index.setNodeConfigN(node.ID, c.N)
			s.index.setWildcard(node.ID, wildcardOf(node))
			s.events.publish(EventRenamed, node.ID)
		}, nil
	case store.DeviceRenewed:
		return func() {
			s.index.put(node)
			s.events.publish(EventRenewed, node.ID)
		}, nil
	case store.DeviceJoined:
		return func() {
			s.index.put(node)
			s.index.setNamesN(c.N)
			s.events.publish(EventJoined, node.ID)
		}, nil
	case store.DeviceMoved:
		return func() {
			before, _ := s.index.device(node.ID)
			s.revoked = append(s.revoked, node.ID)
			s.index.put(node)
			s.index.setNamesN(c.N)
			s.events.moved(node.ID, before)
		}, nil
	}
	aliases, err := r.Aliases(s.network, &node.ID)
	return func() {
		s.index.setAliases(node.ID, wireAliases(aliases))
		s.index.setWildcard(node.ID, wildcardOf(node))
		s.index.put(node)
		s.index.setNamesN(c.N)
		s.events.publish(EventRenamed, node.ID)
	}, err
}

// wildcardOf returns the name of a node that answers for all names below its own, "" for other
// nodes.
func wildcardOf(node store.Node) string {
	if node.Wildcard {
		return node.Name
	}
	return ""
}

func (s *Service) followRemoved(c store.Change) (func(), error) {
	id, err := cert.ParseNodeID(c.ID)
	if err != nil {
		return nil, err
	}
	return func() {
		before, there := s.index.device(id)
		s.revoked = append(s.revoked, id)
		s.index.remove(id, c.N)
		s.index.setNamesN(c.N)
		s.presence.Forget(id)
		s.relay.get().Kick(s.network, id)
		if there {
			s.events.removed(id, before)
		}
	}, nil
}

// followRelays applies a change of the list of relays. It marks the nodes of a removed relay as
// offline, and tells that relay, if it is waiting for news, that it was removed.
func (s *Service) followRelays(relays []store.Relay, n uint64) {
	before := s.index.allRelays()
	s.index.setRelays(relays, n)
	for _, old := range before {
		if slices.ContainsFunc(relays, func(r store.Relay) bool { return r.ID == old.ID }) {
			continue
		}
		for _, node := range s.presence.Lose(old.ID, s.now().UTC()) {
			s.notePresence(node)
		}
		s.relays.end(old.ID)
	}
}
