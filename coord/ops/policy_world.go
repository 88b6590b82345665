package ops

import (
	"net/netip"
	"strings"

	"weft/coord/policy"
	"weft/coord/store"
	"weft/overlay/cert"
)

// world is a network as policies look at it, in one state of the database. It is valid as
// long as its reader.
type world struct {
	s      *Service
	r      *store.Reader
	users  map[string]string           // id to name; nil before they are asked for
	tagged map[string][]policy.Subject // devices that are alike, by each of their tags; likewise
}

func newWorld(s *Service, r *store.Reader) *world { return &world{s: s, r: r} }

// User implements policy.World.
func (w *world) User(name string) (policy.Subject, bool, error) {
	u, err := w.r.UserByName(w.s.network, name)
	if isNotFound(err) {
		return policy.Subject{}, false, nil
	}
	return policy.Subject{User: u.Name}, err == nil, err
}

// Device implements policy.World.
func (w *world) Device(word string) (policy.Subject, bool, error) {
	n, err := w.device(word)
	if isNotFound(err) {
		return policy.Subject{}, false, nil
	}
	return policy.Subject{User: n.User, Tags: n.Tags}, err == nil, err
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
		users, err := w.names()
		if err != nil {
			return nil, err
		}
		w.tagged = map[string][]policy.Subject{}
		for _, key := range keys {
			id, tags := store.ClassOf(key)
			c := policy.Subject{User: users[id], Tags: tags}
			for _, t := range tags {
				w.tagged[t] = append(w.tagged[t], c)
			}
		}
	}
	return w.tagged[tag], nil
}

// names are the users' by id.
func (w *world) names() (map[string]string, error) {
	if w.users == nil {
		users, err := w.r.Users(w.s.network)
		if err != nil {
			return nil, err
		}
		w.users = map[string]string{}
		for _, u := range users {
			w.users[u.ID] = u.Name
		}
	}
	return w.users, nil
}

// deviceFinder is finder for a word of a person: a name (short or full), an overlay
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
