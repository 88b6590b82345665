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
	EventRenamed EventKind = "renamed" // its name or something else that others see changed
	EventRenewed EventKind = "renewed" // it has a new certificate
	EventDeleted EventKind = "deleted"
)

// Event is one change of one device. It only names the device, and subscribers read what they
// show of it: most of them show few devices, so building a Device for each event and subscriber
// would cost more.
type Event struct {
	Kind  EventKind
	ID    cert.NodeID
	KeyID string // id of the join key that it used, "" for none
}

// Interest selects the devices whose events a subscriber gets: all, or those with these ids and
// those that joined with these keys.
type Interest struct {
	Every   bool
	Devices []cert.NodeID
	Keys    []string
}

// topics returns the topics of an interest: only the zero topic if it has Every.
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

// Subscribe returns a channel with the events, in order, about the devices that the actor may
// see and that in selects. It reads the rights of the actor's user again, because they may have
// changed since the request arrived. The caller must call cancel, and may do so more than once.
//
// Publishing never waits for a reader. The channel is closed if the reader lags far behind, or
// if the devices that the user may see have changed: then the caller has to subscribe again and
// to read all state anew.
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

// errRights means that the rights of some user changed while those of a new subscriber were
// read.
var errRights = errors.New("rights changed meanwhile")

// presentRights returns the actor with the rights that the actor's user has now, perhaps none.
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

// withRights returns the actor with the rights in a user's row.
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

// EventMark returns an opaque mark that changes with each event of any device, and when the
// rights of any user change; it also differs between processes. A caller that takes a mark,
// reads devices, subscribes, and then gets the same mark has missed no event.
func (s *Service) EventMark() string {
	h := s.events
	h.mu.Lock()
	n := binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, h.published), h.rights)
	h.mu.Unlock()
	m := hmac.New(sha256.New, h.key[:])
	m.Write(n)
	return base64.RawURLEncoding.EncodeToString(m.Sum(nil)[:12])
}

// hub sends events to subscribers and never waits for one. It authorizes an event once for all
// subscribers that see the same devices.
type hub struct {
	index *index   // its lock may be taken while mu is held
	key   [32]byte // random, for EventMark

	mu        sync.Mutex // guards the following
	closed    bool
	rights    uint64 // how often the rights of users changed
	published uint64 // how many events
	subs      map[*subscription]struct{}
	audiences map[visibility]audience
}

// visibility has everything on which it depends which devices an actor sees.
type visibility struct {
	via   Via
	weak  bool
	role  Role
	tags  string
	owner string // id of the user, if the actor sees only the user's own devices
}

func visibilityOf(a Actor) visibility {
	return visibility{a.Via, a.Weak, a.Role, store.JoinTags(a.Tags), opDeviceRead.ownerSeen(a)}
}

// audience are all subscribers that see the same devices, by topic.
type audience struct {
	actor Actor // one of them
	subs  map[topic]map[*subscription]struct{}
}

// topic selects one device, or the devices that joined with one key; the zero topic selects all
// devices.
type topic struct {
	id  cert.NodeID
	key string
}

type subscription struct {
	sees   visibility
	actor  Actor
	topics []topic
	ch     chan Event
	last   uint64 // number of the last event sent, because an event may match two topics
}

// lag is how many events a subscriber may be behind before its channel is closed.
const lag = 256

func newHub(x *index) *hub {
	h := &hub{index: x, subs: map[*subscription]struct{}{}, audiences: map[visibility]audience{}}
	rand.Read(h.key[:])
	return h
}

// rightsN returns a number that grows when the rights of any user change.
func (h *hub) rightsN() uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.rights
}

// subscribe adds a subscriber whose rights were read when rightsN was n. It returns errRights
// if the rights of some user have changed since, and store.ErrClosed after close.
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

// setRights takes the rights that a user has now. It closes the channels of those of the user's
// subscribers that may see other devices than before.
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

// publish sends an event about a device, unless the device is not in the index.
func (h *hub) publish(kind EventKind, id cert.NodeID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if d, ok := h.index.device(id); ok {
		h.publishLocked(Event{kind, id, d.keyID}, d.target, nil)
	}
}

// removed sends the event that a device was deleted. before is what the index had about it.
func (h *hub) removed(id cert.NodeID, before indexed) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.publishLocked(Event{EventDeleted, id, before.keyID}, before.target, nil)
}

// moved sends the event that a device has other tags or another owner than before. Subscribers
// that no longer see it are told that it was deleted.
func (h *hub) moved(id cert.NodeID, before indexed) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if d, ok := h.index.device(id); ok {
		h.publishLocked(Event{EventRenamed, id, d.keyID}, d.target, &before.target)
	}
}

// publishLocked sends an event to the subscribers that see a device as it is now. Unless before
// is nil, subscribers that saw the device as it was before, but do not see it now, are told
// that it was deleted.
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
