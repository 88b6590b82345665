package ops

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"weft/coord/store"
	"weft/overlay/api"
)

// The owner of the network may demand that people sign their devices in again after some days
// (SetSignIn.DeviceDays). This applies to devices without tags that belong to people: devices
// with tags do not act for a person, and services have nobody who could sign devices in.
//
// A device is signed in when it joins, with any key or code, and when its owner approves it in
// the console, at most FreshFor after having signed in there (SignInDevice). The key of a
// device, an API token and a browser that was left open are not enough. When a device gets
// another owner or loses its last tag, a new period begins.
//
// An overdue device cannot reach other devices: its directory is empty, and rules do not apply
// to it (policy.Audience). It keeps its name, address, keys and certificates, renews these, and
// can be reached as before.
//
// If the server was off when devices came due, they are overdue as soon as it runs again, with
// no grace period for the time that it was off. The device itself knows both times (signInOf)
// and has reminded its owner for up to a week, whether the server ran or not. The owner can
// approve it in the console as soon as the server runs again, with immediate effect. A grace
// period from the start of the server would begin anew with each start, so somebody who can
// make the server restart or crash could postpone the sign-in for ever.
//
// Only the server's clock counts. Devices become overdue on the full hour, so that other
// devices have to fetch their rules for this at most once an hour.

const (
	maxDeviceDays = 365
	remindFor     = 7 * 24 * time.Hour // reminders begin at most this long before a device is overdue
	overdueBatch  = 500                // devices in one write
)

// signInDue returns when a device has to be signed in again, and from when on its owner is
// reminded. ok is false for a device that never has to be signed in again.
func signInDue(set store.SignIn, n store.Node) (due, remind time.Time, ok bool) {
	if set.DeviceDays == 0 || len(n.Tags) > 0 || !n.OfPerson {
		return due, remind, false
	}
	at := n.SignedIn
	if set.DeviceFrom != nil && set.DeviceFrom.After(at) {
		at = *set.DeviceFrom
	}
	period := devicePeriod(set)
	due = at.Add(period).UTC()
	if hour := due.Truncate(time.Hour); hour.Before(due) {
		due = hour.Add(time.Hour)
	}
	return due, due.Add(-min(period/5, remindFor)), true
}

func devicePeriod(set store.SignIn) time.Duration {
	return time.Duration(set.DeviceDays) * 24 * time.Hour
}

// overdueUntil returns the time of the latest sign-in with which a device is overdue now, or
// the zero time if no device can be. It has to agree with signInDue.
func overdueUntil(set store.SignIn, now time.Time) time.Time {
	until := now.UTC().Truncate(time.Hour).Add(-devicePeriod(set))
	if set.DeviceDays == 0 || set.DeviceFrom != nil && set.DeviceFrom.After(until) {
		return time.Time{}
	}
	return until
}

// signInOf returns the part of a device's config that says when it has to be signed in again.
func signInOf(set store.SignIn, n store.Node) *api.SignIn {
	due, remind, ok := signInDue(set, n)
	if !ok {
		return nil
	}
	return &api.SignIn{Due: due, Remind: remind, Overdue: n.Overdue}
}

// DeviceSignIn is when the owner of a device has to sign it in again.
type DeviceSignIn struct {
	Due     time.Time `json:"due"`
	Soon    bool      `json:"soon"` // the owner is reminded, or the device is overdue
	Overdue bool      `json:"overdue"`
}

// deviceSignIn returns the DeviceSignIn of a device, nil if it never has to be signed in again.
func (s *Service) deviceSignIn(n store.Node) *DeviceSignIn {
	due, remind, ok := signInDue(*s.signIn.Load(), n)
	if !ok {
		return nil
	}
	return &DeviceSignIn{Due: due, Soon: n.Overdue || !s.now().Before(remind), Overdue: n.Overdue}
}

// judgeSignIns marks devices overdue that have become so, and unmarks those that are not any
// more, at most limit together. It returns the devices that it changed.
func (tx *Tx) judgeSignIns(set store.SignIn, limit int) ([]store.Node, error) {
	until := overdueUntil(set, tx.now)
	list, err := tx.Lapsed(tx.s.network, until, limit)
	if err != nil {
		return nil, err
	}
	back, err := tx.NotLapsed(tx.s.network, until, limit-len(list))
	if err != nil {
		return nil, err
	}
	list = append(list, back...)
	for i := range list {
		list[i].Overdue = !list[i].Overdue
	}
	return list, tx.setOverdue(list)
}

// setOverdue stores Overdue of the devices in list, and makes the devices and all those that
// their owners may reach fetch what has changed for them.
func (tx *Tx) setOverdue(list []store.Node) error {
	if len(list) == 0 {
		return nil
	}
	n, err := tx.Bump(tx.s.network)
	if err != nil {
		return err
	}
	users := map[string]bool{}
	for _, node := range list {
		users[node.UserID] = true
		if err := tx.SetOverdue(tx.s.network, node.ID, node.Overdue, n); err != nil {
			return err
		}
		tx.changed(n, store.DeviceConfig, node.ID.String())
	}
	return tx.overdueChanged(n, slices.Collect(maps.Keys(users))...)
}

// overdueChanged raises, with change n, the config version of the devices that these users may
// reach, because the rules of those devices depend on which devices of a user are overdue.
func (tx *Tx) overdueChanged(n uint64, userIDs ...string) error {
	for _, id := range userIDs {
		tx.changed(n, store.OverdueChanged, id)
	}
	return tx.BumpConfigOf(tx.s.network, tx.s.index.reachedBy(userIDs), n)
}

// lapse marks devices overdue that have become so. It also unmarks devices that are not overdue
// any more because the clock was set right.
type lapse struct{}

func (lapse) operation() *Operation { return opDeviceOverdue }

// run changes one batch, and returns whether there may be more.
func (lapse) run(tx *Tx) (more bool, err error) {
	if err := tx.may(target{}); err != nil {
		return false, err
	}
	set, err := tx.SignIn(tx.s.network)
	if err != nil {
		return false, err
	}
	list, err := tx.judgeSignIns(set, overdueBatch)
	for _, n := range list {
		due, _, _ := signInDue(set, n)
		tx.did(deviceTarget(n), nil, struct {
			Overdue bool      `json:"overdue"`
			Due     time.Time `json:"due,omitzero"`
		}{n.Overdue, due})
	}
	return len(list) == overdueBatch, err
}

// checkSignIns runs lapse if hour, the result of the last call, is over. It returns the hour,
// since 1970, for which the devices were checked last.
func (s *Service) checkSignIns(ctx context.Context, hour int64) (int64, error) {
	now := s.now().Unix() / 3600
	if now == hour || s.signIn.Load().DeviceDays == 0 { // if it is set later, no device is due within a day
		return now, nil
	}
	for {
		switch more, err := Do(ctx, s, System(), lapse{}); {
		case err != nil:
			return hour, fmt.Errorf("look for devices that have to be signed in again: %w", err)
		case !more:
			return now, nil
		}
	}
}

// reassigned adjusts the sign-in of a device whose owner or tags changed: a device that got
// another owner or lost its last tag begins a new period, and a device with tags is never
// overdue.
func (tx *Tx) reassigned(node *store.Node, old store.Node) error {
	u, err := tx.User(tx.s.network, node.UserID)
	if err != nil {
		return err
	}
	node.OfPerson = u.Kind == store.Person
	moved := node.UserID != old.UserID
	if moved || len(old.Tags) > 0 && len(node.Tags) == 0 {
		node.SignedIn = tx.now
		if err := tx.SetSignedIn(tx.s.network, node.ID, tx.now, node.N); err != nil {
			return err
		}
	}
	if node.Overdue = old.Overdue && !moved && len(node.Tags) == 0; node.Overdue == old.Overdue {
		return nil
	}
	n, err := tx.Bump(tx.s.network)
	if err == nil {
		err = tx.SetOverdue(tx.s.network, node.ID, false, n)
	}
	if err != nil {
		return err
	}
	return tx.overdueChanged(n, old.UserID)
}

// SignInDevice signs in the device that shows a code. Only its owner may do that, in the
// console and after a recent sign-in there.
type SignInDevice struct {
	Code string `json:"-"`
}

func (SignInDevice) operation() *Operation { return opDeviceSignIn }

func (c SignInDevice) run(tx *Tx) (none store.Node, err error) {
	s := tx.s
	tx.asked = true
	if err := tx.op.asks(tx.actor); err != nil {
		return none, err
	}
	a, err := s.askWith(tx.actor, c.Code, tx.now)
	if err != nil {
		return none, err
	}
	if !a.signIn {
		return none, Invalid("the device with this code asks to join; it need not be signed in again")
	}
	node, err := tx.Node(s.network, a.node())
	if err != nil {
		return none, err
	}
	// Limits by tags do not apply here, because the target is the actor's own account.
	if err := tx.may(target{kind: "user", id: node.UserID, owner: node.UserID}); err != nil {
		return none, notYours(err)
	}
	if tx.actor.Via != ViaConsole {
		return none, fmt.Errorf("%s: an API token is not a sign-in; approve the device in the console: %w", tx.op.Name, ErrForbidden)
	}
	if _, _, ok := signInDue(*s.signIn.Load(), node); !ok {
		return none, inTheWay("%s does not have to be signed in again", node.Name)
	}
	switch {
	case a.state == api.AskApproved:
		return none, inTheWay("this device was signed in already%s", byWhom(a.by))
	case a.state == api.AskDenied || tx.now.Before(a.denying):
		return none, refusedAlready(a.by)
	}
	was := struct {
		SignedIn time.Time `json:"signed_in"`
		Overdue  bool      `json:"overdue"`
	}{node.SignedIn, node.Overdue}
	now := was
	now.SignedIn, now.Overdue = tx.now.UTC().Truncate(time.Second), false
	n, err := tx.Bump(s.network)
	if err == nil {
		err = tx.SetSignedIn(s.network, node.ID, now.SignedIn, n)
	}
	if err != nil {
		return none, err
	}
	tx.changed(n, store.DeviceConfig, node.ID.String())
	if node.SignedIn = now.SignedIn; node.Overdue {
		node.Overdue = false
		if err := tx.setOverdue([]store.Node{node}); err != nil {
			return none, err
		}
	}
	tx.did(deviceTarget(node), was, now)
	by := tx.actor.User
	tx.After(func() { s.requests.decide(a.code, api.AskApproved, by) })
	return node, nil
}

// ErrNotYours refuses to sign in a device of somebody else.
var ErrNotYours error = wordedError{"the device with this code belongs to somebody else, and only its owner can sign it in, in the console", ErrForbidden}

// notYours replaces the ErrNotFound that hides other people's devices with ErrNotYours: the
// actor has the code, so there is nothing to hide.
func notYours(err error) error {
	if !isNotFound(err) {
		return err
	}
	return ErrNotYours
}
