package ops

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"weft/coord/store"
)

// An invitation is a sign-in link for a user who has never signed in. It is valid for longer
// than other sign-in links, and only while its sender may still invite the user.

// How long an invitation is valid.
const (
	DefaultInviteLife = 7 * 24 * time.Hour
	minInviteLife     = time.Minute
	maxInviteLife     = 30 * 24 * time.Hour
)

// maxInvitations bounds the invitations of a network that are valid at the same time.
const maxInvitations = 1000

var (
	// ErrInviter refuses an invitation whose sender may no longer give somebody its role and
	// tags.
	ErrInviter = errors.New("the sender of this invitation may no longer invite this person")
	// ErrOtherPerson refuses an invitation in a browser where somebody else is signed in. It
	// may have been sent to that person by mistake, or to trick that person into acting as the
	// invited user.
	ErrOtherPerson = errors.New("somebody else is signed in in this browser")
)

// InviteUser makes a user, or takes one who has never signed in, and makes a link with which
// this person sets a password and is signed in. The link works once. An earlier invitation of
// the user ends.
type InviteUser struct {
	Name        string        `json:"name" required:"true"`
	Role        Role          `json:"role,omitempty" enum:"owner,admin,operator,auditor,member" doc:"as for a new user; member if not given"`
	Tags        []string      `json:"tags,omitempty" doc:"as for a new user"`
	DisplayName string        `json:"display_name,omitempty" doc:"as for a new user"`
	Life        time.Duration `json:"-"` // 1 minute to 30 days; 0 for 7 days
}

func (InviteUser) operation() *Operation { return opUserInvite }

// Invited is an invited user, with the path and query of the link. Only this answer contains
// the link.
type Invited struct {
	store.User
	Path    string
	Expires time.Time
}

func (c InviteUser) run(tx *Tx) (Invited, error) {
	var in Invited
	if err := tx.may(target{}); err != nil {
		return in, err
	}
	if c.Life == 0 {
		c.Life = DefaultInviteLife
	}
	if c.Life < minInviteLife || c.Life > maxInviteLife {
		return in, Invalid("an invitation can be valid for 1 minute to 30 days, not %s", spanText(c.Life))
	}
	u, err := tx.UserByName(tx.s.network, c.Name)
	if isNotFound(err) {
		u, err = within(tx, CreateUser{Name: c.Name, Role: c.Role, Tags: c.Tags, DisplayName: c.DisplayName})
	} else if err == nil {
		err = tx.inviteAgain(u, c)
	}
	in.User = u
	if err != nil {
		return in, err
	}
	if err := tx.EndInvitation(tx.s.network, u.ID); err != nil {
		return in, err
	}
	n, err := tx.CountInvitations(tx.s.network, tx.now)
	if err != nil {
		return in, err
	}
	if n >= maxInvitations {
		return in, Invalid("there are %d open invitations, which is the maximum; revoke some first (weft-server users revoke-invitation NAME)", n)
	}
	token := NewToken()
	in.Path, in.Expires = LinkPath(token), tx.now.Add(c.Life).UTC().Truncate(time.Second)
	if err := tx.Invite(tx.s.network, HashToken(token), u.ID, tx.actor.UserID, tx.now, in.Expires); err != nil {
		return in, err
	}
	tx.did(userTarget(u), nil, invitation{u.Role, u.Tags, in.Expires})
	return in, nil
}

// invitation is the value of audit records about an invitation. It does not contain the link.
type invitation struct {
	Role    string    `json:"role"`
	Tags    []string  `json:"tags,omitempty"`
	Expires time.Time `json:"expires"`
}

// inviteAgain returns nil if an existing user can be invited. A user who has signed in cannot,
// because an invitation must not be a way into an account that is in use.
func (tx *Tx) inviteAgain(u store.User, c InviteUser) error {
	if err := tx.mayGrant(Role(u.Role), u.Tags); err != nil {
		return err
	}
	if err := active(u); err != nil {
		return err
	}
	p, err := tx.UserRow(tx.s.network, u.ID, tx.now)
	if err != nil {
		return err
	}
	if !p.New {
		return fmt.Errorf("%s can sign in already; a sign-in link sets a new password (weft-server login-link --user %[1]s): %w", u.Name, ErrTaken)
	}
	tags, err := checkTags(c.Tags)
	if err != nil {
		return err
	}
	if c.Role != "" && string(c.Role) != u.Role || len(tags) > 0 && !slices.Equal(tags, u.Tags) || c.DisplayName != "" && c.DisplayName != u.DisplayName {
		return Invalid("%s exists already, as %s; edit this user first, then invite without role, tags and display name (weft-server users edit %[1]s)", u.Name, cmp.Or(u.Role, string(RoleMember)))
	}
	return nil
}

// RevokeInvitation ends the invitation of a user, by name or id. The user stays. If there is no
// invitation nothing happens.
type RevokeInvitation struct{ Name string }

func (RevokeInvitation) operation() *Operation { return opUserUninvite }

func (c RevokeInvitation) run(tx *Tx) (store.User, error) {
	u, err := tx.userToChange(c.Name)
	if err != nil {
		return u, err
	}
	p, err := tx.UserRow(tx.s.network, u.ID, tx.now)
	if err != nil || p.Invited == nil {
		return u, err
	}
	if err := tx.EndInvitation(tx.s.network, u.ID); err != nil {
		return u, err
	}
	tx.did(userTarget(u), invitation{u.Role, u.Tags, p.Invited.UTC()}, nil)
	return u, nil
}

// checkInvitation returns an error for an invitation whose user has signed in since, whose
// sender could not send it now, or that is opened in a browser in which somebody else is signed
// in; here is the hash of that browser's session. Other sign-in links pass: only actors who may
// sign in as anybody can make them.
func (s *Service) checkInvitation(r *store.Reader, l store.Link, here [32]byte) error {
	if !l.Invites {
		return nil
	}
	p, err := r.UserRow(s.network, l.User.ID, s.now())
	if err == nil && !p.New { // the user has signed in in another way
		err = fmt.Errorf("invitation of %s: %w", l.User.Name, ErrNotFound)
	}
	if err != nil {
		return err
	}
	if l.By != "" {
		by, err := r.User(s.network, l.By)
		if err != nil && !isNotFound(err) {
			return err
		}
		a := actorOf(by, ViaConsole, netip.Addr{})
		if err != nil || by.Suspended != nil || opUserInvite.authorize(a, target{}) != nil || !a.includes(Role(l.User.Role), l.User.Tags) {
			return fmt.Errorf("invitation of %s: %w", l.User.Name, ErrInviter)
		}
	}
	_, u, err := r.Session(s.network, here)
	switch {
	case isNotFound(err):
		return nil
	case err == nil && u.ID != l.User.ID:
		return fmt.Errorf("invitation of %s: %w", l.User.Name, ErrOtherPerson)
	}
	return err
}
