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

// CreateLink makes a one-time sign-in link for a user ("" for the network's owner). Only a hash
// of its token is stored.
type CreateLink struct{ User string }

func (CreateLink) operation() *Operation { return opUserLink }

// run returns the link's path and query.
func (c CreateLink) run(tx *Tx) (string, error) {
	var u store.User
	var err error
	if tx.actor.UserID != "" { // do not reveal whether there is such a user to actors who may not make links
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
	if u.Suspended != nil {
		return "", fmt.Errorf("%s: %w (weft-server users resume %[1]s)", u.Name, ErrSuspended)
	}
	if u.Kind == store.Service {
		return "", Invalid("%s is a service and does not sign in to the console; give it a token instead (weft-server tokens create %[1]s)", u.Name)
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

// CreateUser makes a user, who is a person or a service.
type CreateUser struct {
	Name    string   `json:"name"`
	Service bool     `json:"service,omitempty" doc:"true for a program, which uses the API with tokens; false for a person"`
	Role    Role     `json:"role,omitempty" enum:"owner,admin,operator,auditor,member" doc:"owner: everything, which only an owner can give; admin: everything but what only the owner may, such as backups and sign-in links; operator: devices and keys of everybody; auditor: read everything; member: only the user's own devices and keys; member if not given"`
	Tags    []string `json:"tags,omitempty" doc:"if given, the role covers only devices and keys with one of these tags"`
	// DisplayName is for people to read.
	DisplayName string `json:"display_name,omitempty" doc:"what people call the user: any letters, at most 100 bytes"`
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
	if err := checkDisplayName(c.DisplayName); err != nil {
		return u, err
	}
	u.DisplayName = c.DisplayName
	if err := tx.grant(&u, cmp.Or(c.Role, RoleMember), c.Tags); err != nil {
		return u, err
	}
	if c.Service && u.Role == string(RoleOwner) {
		return u, Invalid("an owner is a person; make the service an admin")
	}
	if err := tx.makeUser(u); err != nil {
		return u, err
	}
	tx.did(userTarget(u), nil, userAs(u))
	return u, nil
}

// makeUser stores a new user.
func (tx *Tx) makeUser(u store.User) error {
	err := tx.Tx.CreateUser(tx.s.network, u)
	if errors.Is(err, ErrTaken) {
		if used, e := tx.NameUsed(tx.s.network, u.Name); e == nil && used {
			return inTheWay("user %s: a deleted user had this name, and certificates may still contain it; choose another one", u.Name)
		}
		return About(KindUser, u.Name, ErrTaken)
	}
	if err == nil && tx.s.index.namesEach(nil) {
		err = tx.configChanged()
	}
	if err != nil {
		return err
	}
	return tx.userChanged(u)
}

// configChanged makes all nodes fetch their config.
func (tx *Tx) configChanged() error {
	n, err := tx.BumpConfig(tx.s.network)
	if err == nil {
		tx.changed(n, store.ConfigChanged, "")
	}
	return err
}

// EditUser changes the role, tags, display name and groups of a user, by name or id.
type EditUser struct {
	Name        string    `json:"-"`
	Match       []string  `json:"-"` // UserRevision must be one of these; nil for any
	Role        *Role     `json:"role,omitempty" enum:"owner,admin,operator,auditor,member"`
	Tags        *[]string `json:"tags,omitempty" doc:"the new list of tags: tags that are not in it are removed"`
	DisplayName *string   `json:"display_name,omitempty" doc:"what people call the user: any letters, at most 100 bytes; all users may change their own"`
	// These groups must be ones that admins have made.
	AddGroups    []string `json:"add_groups,omitempty" doc:"groups to which the person is added"`
	RemoveGroups []string `json:"remove_groups,omitempty" doc:"groups from which the person is removed"`
}

// operation returns opUserName if only the display name is changed, because all users may change
// their own.
func (c EditUser) operation() *Operation {
	if c.Role == nil && c.Tags == nil && len(c.AddGroups)+len(c.RemoveGroups) == 0 && c.DisplayName != nil {
		return opUserName
	}
	return opUserEdit
}

func (c EditUser) run(tx *Tx) (store.User, error) {
	old, err := tx.userToChange(c.Name)
	if err != nil {
		return old, err
	}
	if err := matches(c.Match, UserRevision(old)); err != nil {
		return old, About(KindUser, old.Name, err)
	}
	u := old
	if c.DisplayName != nil {
		if err := checkDisplayName(*c.DisplayName); err != nil {
			return old, err
		}
		u.DisplayName = *c.DisplayName
	}
	if c.Role != nil || c.Tags != nil {
		role, tags := Role(old.Role), old.Tags
		if c.Role != nil {
			role = *c.Role
		}
		if c.Tags != nil {
			tags = *c.Tags
		}
		if err := tx.grant(&u, role, tags); err != nil {
			return old, err
		}
	}
	was, is, err := tx.regroup(old, c.AddGroups, c.RemoveGroups)
	if err != nil {
		return old, err
	}
	same := u.Role == old.Role && slices.Equal(u.Tags, old.Tags) && u.DisplayName == old.DisplayName
	if same && slices.Equal(was, is) {
		return u, nil
	}
	before, after := userAs(old), userAs(u)
	if !slices.Equal(was, is) {
		before.Groups, after.Groups = groupList(was), groupList(is)
	}
	tx.did(userTarget(u), before, after)
	if same {
		return u, nil
	}
	if u.Role != old.Role && (u.Role == string(RoleOwner) || old.Role == string(RoleOwner)) {
		if err := tx.handOver(&u, old); err != nil {
			return old, err
		}
	}
	if err := tx.SetRole(tx.s.network, u.ID, u.Role, u.Tags); err != nil {
		return old, err
	}
	if err := tx.SetDisplayName(tx.s.network, u.ID, u.DisplayName); err != nil {
		return old, err
	}
	return u, tx.userChanged(u)
}

// handOver is called before a user becomes an owner, or ceases to be one. It makes sure that
// there is an owner afterwards, and that an actor in the console has signed in recently.
func (tx *Tx) handOver(u *store.User, old store.User) error {
	if u.Kind == store.Service {
		return Invalid("an owner is a person; make the service an admin")
	}
	if err := opUserDelete.checkFresh(tx.actor, tx.now); err != nil {
		return err
	}
	if old.Role != string(RoleOwner) {
		return nil
	}
	if err := tx.lastOwner(old); err != nil {
		return err
	}
	u.Owner = false
	return nil
}

// lastOwner is called before u is deleted, suspended, or loses the owner role. It returns an
// error if u is the last owner who is not suspended. If u is the network's owner (FirstUser),
// another owner takes that place. Because there is only one write transaction at a time, two
// owners cannot remove each other.
func (tx *Tx) lastOwner(u store.User) error {
	if u.Role != string(RoleOwner) {
		return nil
	}
	owners, err := tx.UsersOfRole(tx.s.network, string(RoleOwner))
	if err != nil {
		return err
	}
	owners = slices.DeleteFunc(owners, func(o store.User) bool { return o.ID == u.ID })
	if len(owners) == 0 {
		return Invalid("%s is the only owner of this network; make another user an owner first (weft-server users edit NAME --role owner)", u.Name)
	}
	if !u.Owner {
		return nil
	}
	if err := tx.SetFirstUser(tx.s.network, owners[0].ID); err != nil {
		return err
	}
	return tx.userChanged(owners[0])
}

// checkDisplayName refuses a display name that is too long or has characters that printable would
// remove.
func checkDisplayName(name string) error {
	if name != printable(name, maxDisplayName) {
		return Invalid("display name %q: want at most %d bytes, without control characters, and without spaces at the beginning and the end", printable(name, maxDisplayName), maxDisplayName)
	}
	return nil
}

const maxDisplayName = 100 // bytes

// userToChange finds a user whom the actor may change, by name or id. Actors may not change users
// whose role allows more than the actor's.
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

// grant sets the role and the tags of u, if the actor may give them.
func (tx *Tx) grant(u *store.User, role Role, tags []string) error {
	if _, ok := granted[role]; !ok {
		return Invalid("role %q: want owner, admin, operator, auditor or member", printable(string(role), 32))
	}
	tags, err := checkTags(tags)
	if err != nil {
		return err
	}
	if (role == RoleAdmin || role == RoleOwner) && len(tags) > 0 {
		return Invalid("an %s cannot be limited to tags, because users and settings have no tags; make it an operator", role)
	}
	u.Role, u.Tags = string(role), append([]string{}, tags...)
	return tx.mayGrant(role, tags)
}

// granted are the roles that a user can be given.
var granted = map[Role]struct{}{RoleOwner: {}, RoleAdmin: {}, RoleOperator: {}, RoleAuditor: {}, RoleMember: {}}

// mayGrant returns an error if a role with these tags allows more than the actor may do: such an
// actor may neither give nor remove it.
func (tx *Tx) mayGrant(role Role, tags []string) error {
	if tx.actor.includes(role, tags) {
		if role == RoleOwner { // an owner can take over the network
			return tx.op.wantFresh(tx.actor, tx.now)
		}
		return nil
	}
	return fmt.Errorf("%s: your own role allows less than %s: %w", tx.op.Name, role, ErrForbidden)
}

// userChanged notes a change of a user for follow.
func (tx *Tx) userChanged(u store.User) error {
	n, err := tx.Bump(tx.s.network)
	if err == nil {
		tx.changed(n, store.UserChanged, u.ID)
	}
	return err
}

// UserRevision returns a hash of what EditUser and SuspendUser can change of a user, except the
// groups.
func UserRevision(u store.User) string {
	return revisionOfParts(u.Name, u.Role, store.JoinTags(u.Tags), u.DisplayName, fmt.Sprint(u.Suspended != nil))
}

// userRecord is the value of audit records about a user.
type userRecord struct {
	Name string         `json:"name"`
	Kind store.UserKind `json:"kind"`
	Role string         `json:"role"`
	Tags []string       `json:"tags,omitempty"`

	DisplayName string `json:"display_name,omitempty"`
	Suspended   bool   `json:"suspended,omitempty"`

	Groups *[]string `json:"groups,omitempty"` // only if the groups change
}

func groupList(groups []string) *[]string { l := append([]string{}, groups...); return &l }

func userAs(u store.User) userRecord {
	return userRecord{Name: u.Name, Kind: u.Kind, Role: u.Role, Tags: u.Tags, DisplayName: u.DisplayName, Suspended: u.Suspended != nil}
}

// Users lists the users that an actor may see, by name. The list is not nil.
func (s *Service) Users(ctx context.Context, a Actor) ([]store.UserRow, error) {
	list := []store.UserRow{}
	if err := opUserRead.asks(a); err != nil {
		return list, err
	}
	err := s.store.Read(ctx, func(r *store.Reader) error {
		users, err := r.People(s.network, s.now())
		for _, u := range users {
			if opUserRead.authorize(a, userTarget(u.User)) == nil {
				list = append(list, u)
			}
		}
		return err
	})
	return list, err
}

// User finds a user by name or id.
func (s *Service) User(ctx context.Context, a Actor, name string) (p store.UserRow, err error) {
	err = s.store.Read(ctx, func(r *store.Reader) error {
		u, err := findUser(r, s.network, a, name)
		if err == nil {
			p, err = r.UserRow(s.network, u.ID, s.now())
		}
		return err
	})
	if err != nil {
		return store.UserRow{}, About(KindUser, name, err)
	}
	return p, nil
}

// checkUserName refuses a name that cannot be in a certificate.
func checkUserName(name string) error {
	if !cert.ValidWord(name) {
		return Invalid("user name %q: want 1 to 64 letters, digits and ._@+-", printable(name, 64))
	}
	return nil
}

// ReadsPeople reports whether an actor may see all users.
func (a Actor) ReadsPeople() bool {
	return opUserRead.may[a.Role] == all && opUserRead.readsAll(a) == nil
}

// Invites reports whether an actor may invite people.
func (a Actor) Invites() bool { return opUserInvite.authorize(a, target{}) == nil }

// Gives reports whether an actor may give a role to others.
func (a Actor) Gives(r Role) bool { return a.Invites() && a.includes(r, nil) }

// ChangesUser reports whether an actor may change a user.
func (a Actor) ChangesUser(u store.User) bool {
	return opUserEdit.authorize(a, userTarget(u)) == nil && a.includes(Role(u.Role), u.Tags)
}
