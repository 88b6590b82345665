package ops

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"weft/coord/store"
	"weft/overlay/cert"
)

// CreateLink makes a one-time sign-in link for a user ("" for the network's owner). It
// is stored as a hash.
type CreateLink struct{ User string }

func (CreateLink) operation() *Operation { return opUserLink }

// run returns the link's path and query.
func (c CreateLink) run(tx *Tx) (string, error) {
	var u store.User
	var err error
	if tx.actor.UserID != "" { // who may make none is not told either whether there is such a user
		err = tx.op.asks(tx.actor)
	}
	if err == nil {
		u, err = tx.owner("", c.User)
	}
	if err == nil {
		err = tx.may(userTarget(u))
	}
	if err != nil {
		tx.asked = true
		return "", err
	}
	if u.Kind == store.Service {
		return "", Invalid("%s is a service and does not sign in to the console; give it a token: weft-server tokens create %[1]s", u.Name)
	}
	token := NewToken()
	if err := tx.CreateLink(tx.s.network, HashToken(token), u.ID, tx.now, tx.now.Add(LinkLife)); err != nil {
		return "", err
	}
	tx.did(userTarget(u), nil, nil)
	return LinkPath(token), nil
}

func userTarget(u store.User) target {
	return target{kind: "user", id: u.ID, name: u.Name, owner: u.ID}
}

// CreateUser makes a user: a person, or a service, that may do what its role says.
type CreateUser struct {
	Name    string   `json:"name"`
	Service bool     `json:"service,omitempty" doc:"true for a program, which uses the API with tokens; false for a person"`
	Role    Role     `json:"role,omitempty" enum:"admin,operator,auditor,member" doc:"admin: everything but what only the owner may, such as backups and sign-in links; operator: devices and keys of everybody; auditor: read everything; member: only its own devices and keys; member if not given"`
	Tags    []string `json:"tags,omitempty" doc:"if given, the role covers only devices and keys with one of these tags"`
}

func (CreateUser) operation() *Operation { return opUserCreate }

func (c CreateUser) run(tx *Tx) (store.User, error) {
	u := store.User{ID: newID(), Name: c.Name, Kind: store.Person, Created: tx.now.UTC().Truncate(time.Second)}
	if c.Service {
		u.Kind = store.Service
	}
	if err := tx.may(target{}); err != nil {
		return u, err
	}
	if err := checkUserName(c.Name); err != nil {
		return u, err
	}
	if err := tx.grant(&u, cmp.Or(c.Role, RoleMember), c.Tags); err != nil {
		return u, err
	}
	if err := tx.Tx.CreateUser(tx.s.network, u); errors.Is(err, ErrTaken) {
		return u, About(KindUser, u.Name, ErrTaken)
	} else if err != nil {
		return u, err
	}
	tx.did(userTarget(u), nil, userAs(u))
	return u, tx.userChanged(u)
}

// EditUser changes what a user, by name or id, may do.
type EditUser struct {
	Name  string    `json:"-"`
	Match []string  `json:"-"` // the revisions that it may change (UserRevision); nil for any
	Role  *Role     `json:"role,omitempty" enum:"admin,operator,auditor,member"`
	Tags  *[]string `json:"tags,omitempty" doc:"the new list of tags: tags that are not in it are removed"`
}

func (EditUser) operation() *Operation { return opUserEdit }

func (c EditUser) run(tx *Tx) (store.User, error) {
	old, err := tx.userToChange(c.Name)
	if err != nil {
		return old, err
	}
	if err := matches(c.Match, UserRevision(old)); err != nil {
		return old, About(KindUser, old.Name, err)
	}
	if old.Owner {
		return old, Invalid("%s owns the network and stays its owner", old.Name)
	}
	role, tags := Role(old.Role), old.Tags
	if c.Role != nil {
		role = *c.Role
	}
	if c.Tags != nil {
		tags = *c.Tags
	}
	u := old
	if err := tx.grant(&u, role, tags); err != nil {
		return old, err
	}
	if u.Role == old.Role && slices.Equal(u.Tags, old.Tags) {
		return u, nil
	}
	if err := tx.SetRole(tx.s.network, u.ID, u.Role, u.Tags); err != nil {
		return old, err
	}
	tx.did(userTarget(u), userAs(old), userAs(u))
	return u, tx.userChanged(u)
}

// userToChange finds a user whom the actor may change, by name or id: nobody may change a
// user whose role allows more than his own.
func (tx *Tx) userToChange(name string) (store.User, error) {
	u, err := findUser(&tx.Reader, tx.s.network, tx.actor, name)
	if err == nil {
		err = tx.may(userTarget(u))
	}
	if err != nil {
		tx.asked = true
		return u, About(KindUser, name, err)
	}
	return u, tx.mayGrant(Role(u.Role), u.Tags)
}

// findUser finds a user whom an actor may see, by name or id.
func findUser(r *store.Reader, network cert.NetworkID, a Actor, name string) (store.User, error) {
	u, err := r.UserByName(network, name)
	if isNotFound(err) {
		u, err = r.User(network, name)
	}
	if err == nil && opUserRead.authorize(a, userTarget(u)) != nil {
		err = ErrNotFound
	}
	return u, err
}

// grant gives a user a role, narrowed to tags.
func (tx *Tx) grant(u *store.User, role Role, tags []string) error {
	if _, ok := granted[role]; !ok {
		return Invalid("role %q: want admin, operator, auditor or member", printable(string(role), 32))
	}
	tags, err := checkTags(tags)
	if err != nil {
		return err
	}
	if role == RoleAdmin && len(tags) > 0 {
		return Invalid("an admin cannot be limited to tags, because users and settings have no tags; make it an operator")
	}
	u.Role, u.Tags = string(role), append([]string{}, tags...)
	return tx.mayGrant(role, tags)
}

// granted are the roles that a user can be given.
var granted = map[Role]struct{}{RoleAdmin: {}, RoleOperator: {}, RoleAuditor: {}, RoleMember: {}}

// mayGrant refuses to give, or to take, what the actor does not have itself.
func (tx *Tx) mayGrant(role Role, tags []string) error {
	if tx.actor.includes(role, tags) {
		if role == RoleOwner { // who makes owners hands over the network
			return tx.op.wantFresh(tx.actor, tx.now)
		}
		return nil
	}
	return fmt.Errorf("%s: your own role allows less than %s: %w", tx.op.Name, role, ErrForbidden)
}

// userChanged has memory follow.
func (tx *Tx) userChanged(u store.User) error {
	n, err := tx.Bump(tx.s.network)
	if err == nil {
		tx.changed(n, store.UserChanged, u.ID)
	}
	return err
}

// UserRevision changes whenever somebody changes what a user may do.
func UserRevision(u store.User) string {
	return revisionOfParts(u.Name, u.Role, store.JoinTags(u.Tags))
}

// userAs is a user in the audit.
func userAs(u store.User) any {
	return struct {
		Name string         `json:"name"`
		Kind store.UserKind `json:"kind"`
		Role string         `json:"role"`
		Tags []string       `json:"tags,omitempty"`
	}{u.Name, u.Kind, u.Role, u.Tags}
}

// DeleteUser deletes a user, by name or id, that owns no devices and no keys. It is
// signed out everywhere, and its tokens end.
type DeleteUser struct{ Name string }

func (DeleteUser) operation() *Operation { return opUserDelete }

func (c DeleteUser) run(tx *Tx) (store.User, error) {
	u, err := tx.userToChange(c.Name)
	if err != nil {
		return u, err
	}
	if u.Owner {
		return u, Invalid("%s owns the network and cannot be deleted", u.Name)
	}
	if err := tx.endAll(u); err != nil {
		return u, err
	}
	err = tx.Tx.DeleteUser(tx.s.network, u.ID)
	if errors.Is(err, ErrTaken) {
		return u, fmt.Errorf("%s still owns devices or keys; delete those first: %w", u.Name, ErrTaken)
	}
	if err != nil {
		return u, err
	}
	tx.did(userTarget(u), userAs(u), nil)
	return u, tx.userChanged(u)
}

// Users lists the users that an actor may see, by name. The list is not nil.
func (s *Service) Users(ctx context.Context, a Actor) ([]store.User, error) {
	list := []store.User{}
	if err := opUserRead.asks(a); err != nil {
		return list, err
	}
	err := s.store.Read(ctx, func(r *store.Reader) error {
		users, err := r.Users(s.network)
		for _, u := range users {
			if opUserRead.authorize(a, userTarget(u)) == nil {
				list = append(list, u)
			}
		}
		return err
	})
	return list, err
}

// User finds a user by name or id.
func (s *Service) User(ctx context.Context, a Actor, name string) (u store.User, err error) {
	err = s.store.Read(ctx, func(r *store.Reader) (err error) { u, err = findUser(r, s.network, a, name); return err })
	if err != nil {
		return store.User{}, About(KindUser, name, err)
	}
	return u, nil
}

// checkUserName wants a name that can stand in a certificate as it is.
func checkUserName(name string) error {
	if !cert.ValidWord(name) {
		return Invalid("user name %q: want 1 to 64 letters, digits and ._@+-", printable(name, 64))
	}
	return nil
}

// SetConsoleURL tells the service where the console is, for sign-in links.
func (s *Service) SetConsoleURL(base string) { s.consoleURL.Store(&base) }

// consoleBase returns where the console is, as far as is known.
func (s *Service) consoleBase() string {
	if u := s.consoleURL.Load(); u != nil {
		return *u
	}
	if urls := s.index.info().URLs; len(urls) > 0 {
		return urls[0]
	}
	return ""
}
