package ops

import (
	"net/netip"
	"strings"

	"weft/coord/policy"
	"weft/coord/store"
	"weft/overlay/cert"
)

// world gives package policy one state of the database to look at. It is valid as long as its
// reader. The maps are filled when they are first needed, and nil before.
type world struct {
	s      *Service
	r      *store.Reader
	users  map[string]string           // names by user id
	people map[string]policy.Person    // by user id
	tagged map[string][]policy.Subject // classes of devices, by each of their tags
}

func newWorld(s *Service, r *store.Reader) *world { return &world{s: s, r: r} }

// User implements policy.World.
func (w *world) User(name string) (policy.Subject, bool, error) {
	u, err := w.r.UserByName(w.s.network, name)
	if isNotFound(err) {
		return policy.Subject{}, false, nil
	}
	if err != nil {
		return policy.Subject{}, false, err
	}
	s, err := w.subject(u.ID, nil)
	return s, err == nil, err
}

// Group implements policy.World.
func (w *world) Group(name string) (bool, error) {
	_, err := w.r.Group(w.s.network, name)
	if isNotFound(err) {
		return false, nil
	}
	return err == nil, err
}

// Device implements policy.World.
func (w *world) Device(word string) (policy.Subject, bool, error) {
	n, err := w.device(word)
	if isNotFound(err) {
		return policy.Subject{}, false, nil
	}
	if err != nil {
		return policy.Subject{}, false, err
	}
	s, err := w.subject(n.UserID, n.Tags)
	return s, err == nil, err
}

func (w *world) device(word string) (store.Node, error) {
	find, err := w.s.deviceFinder(word)
	if err != nil {
		return store.Node{}, err
	}
	return find(w.r)
}

// Tagged implements policy.World.
func (w *world) Tagged(tag string) ([]policy.Subject, error) {
	if w.tagged == nil {
		keys, err := w.r.Classes(w.s.network)
		if err != nil {
			return nil, err
		}
		w.tagged = map[string][]policy.Subject{}
		for _, key := range keys {
			id, tags := store.ClassOf(key)
			c, err := w.subject(id, tags)
			if err != nil {
				return nil, err
			}
			for _, t := range tags {
				w.tagged[t] = append(w.tagged[t], c)
			}
		}
	}
	return w.tagged[tag], nil
}

// names returns the names of users by id.
func (w *world) names() (map[string]string, error) {
	if w.users == nil {
		users, people, err := peopleOf(w.r, w.s.network)
		if err != nil {
			return nil, err
		}
		w.users, w.people = users, people
	}
	return w.users, nil
}

// subject returns a user's devices with these tags in the form that policies need.
func (w *world) subject(userID string, tags []string) (policy.Subject, error) {
	users, err := w.names()
	p := w.people[userID]
	return policy.Subject{User: users[userID], Tags: tags, Groups: p.Groups, Suspended: p.Suspended}, err
}

// deviceFinder is finder for a word that a person typed: a name (short or full), an overlay
// address or an id.
func (s *Service) deviceFinder(word string) (func(*store.Reader) (store.Node, error), error) {
	name, ip, id := word, "", ""
	if _, err := netip.ParseAddr(word); err == nil {
		name, ip = "", word
	} else if _, err := cert.ParseNodeID(strings.ToLower(word)); err == nil {
		name, id = "", strings.ToLower(word)
	}
	return s.finder(name, ip, id)
}
