package ops

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"

	"weft/coord/store"
	"weft/overlay/cert"
)

// EventKind says what happened to a device.
type EventKind string

// The kinds of Event.
const (
	EventJoined  EventKind = "joined"
	EventOnline  EventKind = "online"
	EventOffline EventKind = "offline"
	EventRenamed EventKind = "renamed" // or something else that is seen of it changed
	EventRenewed EventKind = "renewed" // it has another certificate
	EventDeleted EventKind = "deleted"
)

// Event is one change of one device. It says which one, and a follower reads what it shows
// of it: a View of every device for every follower would cost more than all that is shown.
type Event struct {
	Kind  EventKind
	ID    cert.NodeID
	KeyID string // of the key that it joined with, "" for none
}

// Interest says which devices a follower is told of: every one, or those of these ids, and
// those that joined with these keys.
type Interest struct {
	Every   bool
	Devices []cert.NodeID
	Keys    []string
}

// topics are the parts of an interest. One with Every has no others.
func (i Interest) topics() (list []topic) {
	if i.Every {
		return []topic{{}}
	}
	for _, id := range i.Devices {
		list = append(list, topic{id: id})
	}
	for _, key := range i.Keys {
		if key != "" {
			list = append(list, topic{key: key})
		}
	}
	return list
}

// Subscribe sends events about the devices that the actor may see, and is interested in, to
// a channel, in order, until cancel is called, which may be called more than once. What the
// actor may see is what its user may see now, whatever it was when the request arrived.
//
// Publishing never waits for a reader. If a reader lags far behind, or its user may see
// other devices from now on, its channel is closed: it has to subscribe and to read the
// state anew.
func (s *Service) Subscribe(ctx context.Context, a Actor, in Interest) (events <-chan Event, cancel func(), err error) {
	for {
		n := s.events.rightsN()
		now, err := s.presentRights(ctx, a)
		if err != nil {
			return nil, nil, fmt.Errorf("read what %s may see: %w", a.User, err)
		}
		if events, cancel, err = s.events.subscribe(now, in, n); err != errRights {
			return events, cancel, err
		}
	}
}

// errRights says that the rights of some user changed while those of a new subscriber were
// read.
var errRights = errors.New("rights changed meanwhile")

// presentRights is an actor with the rights that its user has now, which may be none.
func (s *Service) presentRights(ctx context.Context, a Actor) (Actor, error) {
	if a.UserID == "" {
		return a, nil
	}
	var u store.User
	err := s.store.Read(ctx, func(r *store.Reader) (err error) { u, err = r.User(s.network, a.UserID); return err })
	if isNotFound(err) {
		u, err = store.User{ID: a.UserID}, nil
	}
	return a.withRights(u), err
}

// withRights is an actor with the rights of its user's row.
func (a Actor) withRights(u store.User) Actor {
	now := actorOf(u, "", netip.Addr{})
	if u.Suspended != nil {
		now.Role = ""
	}
	a.Role, a.Tags = now.Role, now.Tags
	return a
}

// Followers returns how many subscriptions are open.
func (s *Service) Followers() int {
	s.events.mu.Lock()
	defer s.events.mu.Unlock()
	return len(s.events.subs)
}

// EventMark stands for all events so far. It is another one after each event of any device,
// after rights of any user have changed, and in another process; it says nothing about them.
// Whoever takes a mark, reads devices, subscribes, and then gets the same mark has missed
// nothing.
func (s *Service) EventMark() string {
	h := s.events
	h.mu.Lock()
	n := binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, h.published), h.rights)
	h.mu.Unlock()
	m := hmac.New(sha256.New, h.key[:])
	m.Write(n)
	return base64.RawURLEncoding.EncodeToString(m.Sum(nil)[:12])
}

// hub hands events to subscribers and never waits for one. Which of them may see a device
// is decided once for all that see the same devices.
type hub struct {
	index *index   // of the devices; its lock may be taken while mu is held
	key   [32]byte // of marks; random

	mu        sync.Mutex // guards the following
	closed    bool
	rights    uint64 // how often the rights of users changed
	published uint64 // how many events
	subs      map[*subscription]struct{}
	audiences map[visibility]audience
}

// visibility is what decides which devices an actor sees.
type visibility struct {
	via   Via
	weak  bool
	role  Role
	tags  string
	owner string // of one that sees its own only
}

func visibilityOf(a Actor) visibility {
	return visibility{a.Via, a.Weak, a.Role, store.JoinTags(a.Tags), opDeviceRead.ownerSeen(a)}
}

// audience is all subscribers that see the same devices, by what they are interested in.
type audience struct {
	actor Actor // one of them
	subs  map[topic]map[*subscription]struct{}
}

// topic is a device, or those of a key; the zero topic is every device.
type topic struct {
	id  cert.NodeID
	key string
}

type subscription struct {
	sees   visibility
	actor  Actor
	topics []topic
	ch     chan Event
	last   uint64 // number of the last event: it may be of two topics
}

// lag is how many events a subscriber may be behind.
const lag = 256

func newHub(x *index) *hub {
	h := &hub{index: x, subs: map[*subscription]struct{}{}, audiences: map[visibility]audience{}}
	rand.Read(h.key[:])
	return h
}

// rightsN grows when the rights of a user change.
func (h *hub) rightsN() uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.rights
}

// subscribe adds a subscriber whose rights were read while rightsN was n. It fails with
// errRights if some user's have changed since, and with store.ErrClosed after close.
func (h *hub) subscribe(a Actor, in Interest, n uint64) (events <-chan Event, cancel func(), err error) {
	sub := &subscription{sees: visibilityOf(a), actor: a, topics: in.topics(), ch: make(chan Event, lag)}
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.closed:
		return nil, nil, store.ErrClosed
	case h.rights != n:
		return nil, nil, errRights
	}
	h.subs[sub] = struct{}{}
	for _, t := range sub.topics {
		of, ok := h.audiences[sub.sees]
		if !ok {
			of = audience{a, map[topic]map[*subscription]struct{}{}}
			h.audiences[sub.sees] = of
		}
		if of.subs[t] == nil {
			of.subs[t] = map[*subscription]struct{}{}
		}
		of.subs[t][sub] = struct{}{}
	}
	return sub.ch, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.dropLocked(sub)
	}, nil
}

func (h *hub) dropLocked(sub *subscription) {
	if _, ok := h.subs[sub]; !ok {
		return
	}
	delete(h.subs, sub)
	close(sub.ch)
	subs := h.audiences[sub.sees].subs
	for _, t := range sub.topics {
		if delete(subs[t], sub); len(subs[t]) == 0 {
			delete(subs, t)
		}
	}
	if len(subs) == 0 {
		delete(h.audiences, sub.sees)
	}
}

// setRights notes the rights that a user has now: those of its subscribers that see other
// devices by them begin anew.
func (h *hub) setRights(u store.User) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.rights++
	for sub := range h.subs {
		if sub.actor.UserID == u.ID && visibilityOf(sub.actor.withRights(u)) != sub.sees {
			h.dropLocked(sub)
		}
	}
}

// publish tells of a change of a device that the index has. Of one that it does not have
// nobody is told.
func (h *hub) publish(kind EventKind, id cert.NodeID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if d, ok := h.index.device(id); ok {
		h.publishLocked(Event{kind, id, d.keyID}, d.target, nil)
	}
}

// removed tells that a device is gone. before is what the index had of it.
func (h *hub) removed(id cert.NodeID, before indexed) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.publishLocked(Event{EventDeleted, id, before.keyID}, before.target, nil)
}

// moved tells that a device has other tags or another owner than before. For who no longer
// sees it, it is gone.
func (h *hub) moved(id cert.NodeID, before indexed) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if d, ok := h.index.device(id); ok {
		h.publishLocked(Event{EventRenamed, id, d.keyID}, d.target, &before.target)
	}
}

// publishLocked sends an event to who sees a device as it is now. Who saw it as it was
// before, if that is another one, and no longer does, is told that it is gone.
func (h *hub) publishLocked(e Event, now target, before *target) {
	h.published++
	topics := []topic{{}, {id: e.ID}, {key: e.KeyID}}
	if e.KeyID == "" {
		topics = topics[:2]
	}
	for _, of := range h.audiences {
		if !slices.ContainsFunc(topics, func(t topic) bool { return len(of.subs[t]) > 0 }) {
			continue
		}
		to := e
		if opDeviceRead.authorize(of.actor, now) != nil {
			if before == nil || opDeviceRead.authorize(of.actor, *before) != nil {
				continue
			}
			to.Kind = EventDeleted
		}
		for _, t := range topics {
			for sub := range of.subs[t] {
				h.sendLocked(sub, to)
			}
		}
	}
}

func (h *hub) sendLocked(sub *subscription, e Event) {
	if sub.last == h.published {
		return
	}
	sub.last = h.published
	select {
	case sub.ch <- e:
	default:
		h.dropLocked(sub)
	}
}

// close ends all subscriptions, and refuses new ones.
func (h *hub) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	for sub := range h.subs {
		h.dropLocked(sub)
	}
}
