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

// A network may want that people sign their devices in again every so many days
// (SetSignIn.DeviceDays). That concerns devices without tags of people: those with tags act
// as their tags, and services have nobody to sign them in.
//
// What counts as signing in is to join, by whatever key or code, and to be approved by the
// person whose device it is, in the console after a sign-in of the last FreshFor
// (SignInDevice): the key of a device, a token for the API and a browser that was left open
// are not enough. A device that gets an owner, or loses its last tag, begins a period.
//
// A device that is overdue reaches nothing: it sees nobody, and rules do not mean it
// (policy.Audience). It keeps its name, address, keys and certificates, renews these, and
// can be reached as before.
//
// A server that was off when devices came due has them be overdue as soon as it runs, with
// no grace for the time that it was off. The device itself knows both times (signInOf) and
// has reminded its person, for up to a week, whether the server ran or not; to approve it
// takes the console, which runs again by then, and counts at once. A grace counted from the
// start of the server would begin anew with each start: who can have it restart, or crash,
// could put off without end what the owner demands.
//
// Only the server's clock counts. It decides on the full hour, so that however many devices
// become overdue, other devices have to fetch their rules once in an hour at most for it.

const (
	maxDeviceDays = 365
	remindFor     = 7 * 24 * time.Hour // at most, before a device is overdue
	overdueBatch  = 500                // devices in one write
)

// signInDue returns when a device has to be signed in again, and from when on people are
// reminded of that. ok is false for a device that never has to.
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

// overdueUntil is the latest sign-in of devices that are overdue now; the zero time if none
// can be, which is before all of them. It says the same as signInDue.
func overdueUntil(set store.SignIn, now time.Time) time.Time {
	until := now.UTC().Truncate(time.Hour).Add(-devicePeriod(set))
	if set.DeviceDays == 0 || set.DeviceFrom != nil && set.DeviceFrom.After(until) {
		return time.Time{}
	}
	return until
}

// signInOf is what a device is told of that.
func signInOf(set store.SignIn, n store.Node) *api.SignIn {
	due, remind, ok := signInDue(set, n)
	if !ok {
		return nil
	}
	return &api.SignIn{Due: due, Remind: remind, Overdue: n.Overdue}
}

// DeviceSignIn is when the person whose device it is has to sign it in again.
type DeviceSignIn struct {
	Due     time.Time `json:"due"`
	Soon    bool      `json:"soon"` // so soon that people are reminded, or overdue
	Overdue bool      `json:"overdue"`
}

// deviceSignIn is that of a device, nil for one that never has to be signed in again.
func (s *Service) deviceSignIn(n store.Node) *DeviceSignIn {
	due, remind, ok := signInDue(*s.signIn.Load(), n)
	if !ok {
		return nil
	}
	return &DeviceSignIn{Due: due, Soon: n.Overdue || !s.now().Before(remind), Overdue: n.Overdue}
}

// judgeSignIns has devices be overdue that should be, and no others: at most limit of them.
// It returns those that it changed.
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

// setOverdue stores that of devices that have it changed, and has everybody follow whom it
// concerns: the devices, and those that their users reach.
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

// overdueChanged has everybody follow, with change n, that other devices of users are
// overdue.
func (tx *Tx) overdueChanged(n uint64, userIDs ...string) error {
	for _, id := range userIDs {
		tx.changed(n, store.OverdueChanged, id)
	}
	return tx.BumpConfigOf(tx.s.network, tx.s.index.reachedBy(userIDs), n)
}

// lapse has devices be overdue whose time has come, and others not be: after the clock was
// put right.
type lapse struct{}

func (lapse) operation() *Operation { return opDeviceOverdue }

// run returns whether there are more.
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

// checkSignIns runs lapse if the hour is another one than hour. It returns the hour that it
// was done for.
func (s *Service) checkSignIns(ctx context.Context, hour int64) (int64, error) {
	now := s.now().Unix() / 3600
	if now == hour || s.signIn.Load().DeviceDays == 0 { // turned on, it is due in a day
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

// reassigned begins a period of a device that has got an owner, or lost its last tag. One
// with tags is never overdue.
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

// SignInDevice signs the device in that shows a code and asks for that. The person whose
// device it is does that, in the console and after a recent sign-in.
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
		return none, Invalid("the device with this code asks to join; it has not to be signed in again")
	}
	node, err := tx.Node(s.network, a.node())
	if err != nil {
		return none, err
	}
	// Tags do not narrow what somebody may do here: it is about their account.
	if err := tx.may(target{kind: "user", id: node.UserID, owner: node.UserID}); err != nil {
		return none, notYours(err)
	}
	if tx.actor.Via != ViaConsole {
		return none, fmt.Errorf("%s: a token is no sign-in; approve it in the console: %w", tx.op.Name, ErrForbidden)
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

// ErrNotYours refuses to sign in a device for somebody else.
var ErrNotYours error = wordedError{"this code is of a device that belongs to somebody else, who alone can sign it in, in the console", ErrForbidden}

// notYours says that of a device that the actor may do nothing to.
func notYours(err error) error {
	if !isNotFound(err) {
		return err
	}
	return ErrNotYours
}
