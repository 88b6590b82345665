package ops

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"weft/coord/ratelimit"
	"weft/coord/store"
	"weft/dns"
	"weft/overlay/api"
)

// Request is a device that asks to join. Hostname, OS and Version are what it claims; From and
// At are what the server saw.
type Request struct {
	ID       string    `json:"id"`
	Hostname string    `json:"hostname"`
	OS       string    `json:"os"`
	Version  string    `json:"version"`
	From     string    `json:"from"` // address, "" for unknown
	At       time.Time `json:"at"`
	Expires  time.Time `json:"expires"`
	// Name is the name that the device would get, or has if SignIn is set.
	Name string `json:"name"`
	// SignIn says that the device has joined, and asks its owner to sign it in again.
	SignIn bool `json:"sign_in,omitempty"`
	// State is api.AskWaiting, AskApproved or AskDenied, and By who decided.
	State string `json:"state"`
	By    string `json:"by"`
}

func (s *Service) request(a ask) Request {
	r := Request{
		ID: a.id, Hostname: a.hostname, OS: a.os, Version: a.software, At: a.at.UTC().Truncate(time.Second), Expires: a.expires().UTC().Truncate(time.Second),
		Name: CleanName(a.hostname), SignIn: a.signIn, State: a.state, By: a.by,
	}
	if a.from.IsValid() {
		r.From = a.from.String()
	}
	return r
}

// Requests lists the waiting devices, oldest first, without their codes: only the person in
// front of a device knows its code. An actor who sees only what is the actor's own sees none,
// because a request belongs to nobody yet.
func (s *Service) Requests(ctx context.Context, a Actor) ([]Request, error) {
	list := []Request{}
	if err := opRequestRead.asks(a); err != nil {
		return list, err
	}
	if opRequestRead.authorize(a, target{}) != nil {
		return list, nil
	}
	for _, w := range s.requests.all(s.now()) {
		if w.signIn && opDeviceRead.authorize(a, s.index.targetOf(w.node())) != nil {
			continue // the actor may not see that device's name
		}
		if w.state == api.AskWaiting {
			r := s.request(w)
			if err := s.nameRequest(ctx, w, &r); err != nil {
				return nil, err
			}
			list = append(list, r)
		}
	}
	slices.SortFunc(list, func(x, y Request) int { return cmp.Or(x.At.Compare(y.At), cmp.Compare(x.ID, y.ID)) })
	return list, nil
}

// Request returns the device that shows a code. A wrong code counts against the few attempts
// that an account and an address have.
func (s *Service) Request(ctx context.Context, a Actor, code string) (Request, error) {
	if err := opRequestRead.asks(a); err != nil {
		return Request{}, err
	}
	w, err := s.askWith(a, code, s.now())
	if err != nil {
		return Request{}, err
	}
	r := s.request(w)
	if w.signIn && a.UserID != "" {
		if t := s.index.targetOf(w.node()); t.owner != a.UserID {
			return Request{}, notYours(ErrNotFound)
		}
	}
	return r, s.nameRequest(ctx, w, &r)
}

// nameRequest sets Name: what the device is called, or would be if it joined now.
func (s *Service) nameRequest(ctx context.Context, a ask, r *Request) error {
	return s.store.Read(ctx, func(rd *store.Reader) error {
		if a.signIn {
			node, err := rd.Node(s.network, a.node())
			if err == nil {
				r.Name = node.Name
			} else if isNotFound(err) { // deleted meanwhile, so it cannot be approved
				err = nil
			}
			return err
		}
		former, err := rd.FormerName(s.network, a.node(), s.now().Add(-store.FormerKeep))
		if err != nil && !isNotFound(err) {
			return err
		}
		base := CleanName(a.hostname)
		names := []string{base}
		if former != "" {
			names = []string{former, base}
		}
		for n := 1; n < 100; n++ {
			names = append(names, fmt.Sprintf("%s-%d", base, n))
		}
		for _, name := range names {
			taken, err := rd.NameTaken(s.network, name)
			if err != nil {
				return err
			}
			if !taken && !dns.Reserved(name) {
				r.Name = name
				return nil
			}
		}
		return nil
	})
}

// askWith finds the request with a code, and counts the attempt.
func (s *Service) askWith(a Actor, code string, now time.Time) (ask, error) {
	refund, err := s.requests.try(a, now)
	if err != nil {
		return ask{}, err
	}
	hash, ok := hashAsk(code)
	if !ok {
		// No code looks like this, so the attempt reveals nothing and is not counted.
		refund()
		return ask{}, Invalid("a code has %d letters and digits, such as %s", codeLength, "BCDFG-HJKLM")
	}
	w, ok := s.requests.with(hash, now)
	if !ok {
		return ask{}, fmt.Errorf("request with this code: %w; a code is good for %d minutes: compare it with the screen of the device, or run weft up there again", ErrNotFound, int(api.AskLife/time.Minute))
	}
	refund()
	return w, nil
}

// try uses up one attempt to give a code. refund restores it.
func (t *asks) try(a Actor, now time.Time) (refund func(), err error) {
	var names []string
	refund = func() {
		for _, name := range names {
			t.tries.Refund(name)
		}
	}
	if a.UserID == "" { // root, who has the data directory
		return refund, nil
	}
	limits := []struct {
		name string
		ratelimit.Limit
	}{{"user " + a.UserID, tryLimit}}
	if a.From.IsValid() && !a.From.IsLoopback() {
		limits = append(limits, struct {
			name string
			ratelimit.Limit
		}{"from " + SourceOf(a.From).String(), tryLimitFrom})
	}
	for _, l := range limits {
		left, ok := t.tries.Take(l.name, l.Limit, now)
		if !ok {
			refund()
			return nil, tooOften("too many wrong codes: try again in %s", max(left.Wait, time.Second).Round(time.Second))
		}
		names = append(names, l.name)
	}
	return refund, nil
}

// ApproveRequest lets the device that shows a code join. It becomes the device of the actor, or
// of User, or gets Tags. An actor who may make a join key for that may approve it.
type ApproveRequest struct {
	Code   string   `json:"-"`
	User   string   `json:"user,omitempty"` // name of the owner that it gets
	UserID string   `json:"-"`              // instead of User
	Tags   []string `json:"tags,omitempty"` // with or without "tag:"
}

func (ApproveRequest) operation() *Operation { return opRequestApprove }

func (c ApproveRequest) run(tx *Tx) (none store.Node, err error) {
	s := tx.s
	if err := tx.op.asks(tx.actor); err != nil {
		return none, err
	}
	tags, err := checkTags(c.Tags)
	if err != nil {
		return none, err
	}
	if !tx.actor.covers(tags) || !tx.actor.holds(tags) {
		return none, fmt.Errorf("%s: you may give only your own tags, which are %s: %w", tx.op.Name, strings.Join(tx.actor.Tags, ", "), ErrForbidden)
	}
	u, err := tx.ownerOfKey(CreateKey{User: c.User, UserID: c.UserID})
	if err != nil {
		return none, err
	}
	if err := tx.may(target{kind: "request", owner: u.ID, tags: tags}); err != nil {
		if c.User != "" && isNotFound(err) { // do not reveal whether there is such a user
			err = About(KindUser, c.User, err)
		}
		return none, err
	}
	if err := tx.mayTag(tags); err != nil {
		return none, err
	}
	a, err := s.askWith(tx.actor, c.Code, tx.now)
	if err != nil {
		return none, err
	}
	if a.signIn {
		return none, Invalid("the device with this code has joined, and asks to be signed in again: only the person whose it is can do that, in the console")
	}
	if err := tx.undecided(a); err != nil {
		return none, err
	}
	if tx.now.Before(a.denying) {
		return none, refusedAlready(a.by)
	}
	// This stands for the join key. It is the same for all that a person approves, so that
	// the limit on a key's deleted devices applies to them too.
	key := store.Key{ID: "user:" + u.ID, UserID: u.ID, User: u.Name, Tags: tags}
	gone, err := s.mayJoin(&tx.Reader, key, 0, tx.now)
	if err != nil {
		return none, err
	}
	node, err := s.makeNode(tx, a.newcomer, key, gone)
	if err != nil {
		return none, err
	}
	t := requestTarget(a)
	tx.did(t, nil, struct {
		Request
		Device string   `json:"device"`
		User   string   `json:"user"`
		Tags   []string `json:"tags"`
	}{decided(s.request(a), api.AskApproved, tx.actor), node.ID.String(), node.User, node.Tags})
	tx.note(opDeviceJoin, deviceTarget(node), nil, node)
	by := tx.actor.User
	tx.After(func() { s.requests.decide(a.code, api.AskApproved, by) })
	return node, nil
}

func decided(r Request, state string, by Actor) Request {
	r.State, r.By = state, by.User
	return r
}

func requestTarget(a ask) target { return target{kind: "request", id: a.id, name: a.hostname} }

// undecided returns an error if the request has been decided already.
func (tx *Tx) undecided(a ask) error {
	state, by := a.state, a.by
	if a.signIn {
		if state == api.AskApproved {
			return inTheWay("this device was signed in already%s", byWhom(by))
		}
	} else if _, err := tx.Node(tx.s.network, a.node()); err == nil {
		state = api.AskApproved
	} else if !isNotFound(err) {
		return err
	}
	switch state {
	case api.AskApproved:
		return inTheWay("this device was let in already%s", byWhom(by))
	case api.AskDenied:
		return refusedAlready(by)
	}
	return nil
}

func refusedAlready(by string) error {
	return inTheWay("this device was refused already%s; it can ask again", byWhom(by))
}

func byWhom(by string) string {
	if by == "" {
		return ""
	}
	return ", by " + by
}

// DenyRequest refuses a device. Word is the code that it shows, or its id from the list.
type DenyRequest struct{ Word string }

func (DenyRequest) operation() *Operation { return opRequestDeny }

func (c DenyRequest) run(tx *Tx) (none Request, err error) {
	s := tx.s
	if err := tx.op.asks(tx.actor); err != nil {
		return none, err
	}
	var a ask
	if _, ok := hashAsk(c.Word); ok {
		// A person who sees the code may say that the device is not theirs.
		tx.asked = true
		a, err = s.askWith(tx.actor, c.Word, tx.now)
	} else {
		a, err = tx.askByID(c.Word)
	}
	if err != nil {
		return none, err
	}
	if err := tx.undecided(a); err != nil {
		return none, err
	}
	by := tx.actor.User
	s.requests.deny(a.code, by, tx.now)
	r := decided(s.request(a), api.AskDenied, tx.actor)
	tx.did(requestTarget(a), nil, r)
	tx.After(func() { s.requests.decide(a.code, api.AskDenied, by) })
	return r, nil
}

// askByID finds a request by its id, for an actor who may list and decide all requests.
func (tx *Tx) askByID(id string) (ask, error) {
	if err := tx.may(target{}); err != nil {
		return ask{}, err
	}
	for _, a := range tx.s.requests.all(tx.now) {
		if a.id == id {
			return a, nil
		}
	}
	return ask{}, About(KindRequest, id, ErrNotFound)
}
