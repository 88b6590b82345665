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

// Request is a device that asks to be let in. Hostname, OS and Version are as it says,
// From and At as the server saw.
type Request struct {
	ID       string    `json:"id"`
	Hostname string    `json:"hostname"`
	OS       string    `json:"os"`
	Version  string    `json:"version"`
	From     string    `json:"from"` // address, "" for unknown
	At       time.Time `json:"at"`
	Expires  time.Time `json:"expires"`
	// Name is the name that it would get; if SignIn is set, the one that it has.
	Name string `json:"name"`
	// SignIn says that it has joined, and is to be signed in again by the person whose it is.
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

// Requests lists the devices that wait, oldest first. Their codes are not known here: only
// whoever has the device in front of them has its code. Who may see only what is their own
// sees none, since nobody's is a request yet.
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
			continue // the name of that device is not for them
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

// Request returns the device with a code, for whoever is about to decide. A wrong code is
// one of few that an account and an address may try.
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

// nameRequest sets the name that a device has, or would get if it joined now.
func (s *Service) nameRequest(ctx context.Context, a ask, r *Request) error {
	return s.store.Read(ctx, func(rd *store.Reader) error {
		if a.signIn {
			node, err := rd.Node(s.network, a.node())
			if err == nil {
				r.Name = node.Name
			} else if isNotFound(err) { // deleted meanwhile: nobody can approve it
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

// askWith finds the request with a code, and counts what somebody tries.
func (s *Service) askWith(a Actor, code string, now time.Time) (ask, error) {
	refund, err := s.requests.try(a, now)
	if err != nil {
		return ask{}, err
	}
	hash, ok := hashAsk(code)
	if !ok {
		// It cannot be one: that tells nothing about those that there are.
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

// try uses one attempt to name a code. refund gives it back.
func (t *asks) try(a Actor, now time.Time) (refund func(), err error) {
	var names []string
	refund = func() {
		for _, name := range names {
			t.tries.Refund(name)
		}
	}
	if a.UserID == "" { // whoever has the data directory
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

// ApproveRequest lets in the device that shows a code. It becomes the device of whoever
// approves, or of User, or carries Tags: whoever may make a key for that may approve it.
type ApproveRequest struct {
	Code   string   `json:"-"`
	User   string   `json:"user,omitempty"` // name of its owner to be
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
		if c.User != "" && isNotFound(err) { // whether there is such a user is not for the actor to know
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
	// In place of a key: one for all that a person approves, so that the limit on deleted
	// devices of a key holds for them too.
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

// undecided refuses to decide a second time.
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

// DenyRequest refuses the device that shows a code, or that a list names by its id: Word
// is either.
type DenyRequest struct{ Word string }

func (DenyRequest) operation() *Operation { return opRequestDeny }

func (c DenyRequest) run(tx *Tx) (none Request, err error) {
	s := tx.s
	if err := tx.op.asks(tx.actor); err != nil {
		return none, err
	}
	var a ask
	if _, ok := hashAsk(c.Word); ok {
		// Whoever has the code in front of them may say that it is not theirs.
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

// askByID finds a request for who has the list, and may decide about everybody's.
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
