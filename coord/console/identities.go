package console

import (
	"errors"
	"net/http"
	"strings"

	"weft/coord/ops"
	"weft/coord/store"
)

// identityView is somebody as a provider tells of them.
type identityView struct {
	ID, Provider, Subject, Name, Mail string
	User                              string // "" while waiting for approval
	ByRule                            bool
	Created, Seen                     stamp
}

type identitiesView struct {
	Waiting, Approved []identityView
	More              int // approved ones that are not shown
	Change            bool
	Problem           string
}

const maxIdentitiesShown = 200

// identities is the page of whoever signed in at a provider: who waits for approval, and
// who was approved.
func (c *Console) identities(v *visit) error {
	return c.identitiesPage(v, http.StatusOK, "")
}

func (c *Console) identitiesPage(v *visit, status int, problem string) error {
	list, err := c.ops.Identities(v.ctx(), v.actor)
	if err != nil {
		return err
	}
	view := identitiesView{Problem: problem, Change: v.actor.Role == ops.RoleOwner || v.actor.Role == ops.RoleAdmin}
	for _, i := range list {
		iv := identityView{
			ID: i.ID, Provider: clean(i.Provider), Subject: clean(i.Subject), Name: clean(i.Name), Mail: clean(i.Mail),
			User: clean(i.User), ByRule: i.Admitted, Created: c.stamp(i.Created), Seen: c.stamp(i.Seen),
		}
		switch {
		case i.UserID == "":
			view.Waiting = append(view.Waiting, iv)
		case len(view.Approved) < maxIdentitiesShown:
			view.Approved = append(view.Approved, iv)
		default:
			view.More++
		}
	}
	return c.render(v, status, "identities", view)
}

// approvePerson takes somebody who waits: as a new user, or as the one that is named.
func (c *Console) approvePerson(v *visit) error {
	id, err := v.pathID()
	if err != nil {
		return err
	}
	return c.decided(v, ops.ApproveIdentity{ID: id, User: strings.TrimSpace(cut(v.r.PostForm.Get("user"), 200))})
}

// denyPerson forgets somebody.
func (c *Console) denyPerson(v *visit) error {
	id, err := v.pathID()
	if err != nil {
		return err
	}
	return c.decided(v, ops.DenyIdentity{ID: id})
}

func (c *Console) decided(v *visit, command ops.Command[store.Identity]) error {
	_, err := ops.Do(v.ctx(), c.ops, v.actor, command)
	switch problem := problemText(err); {
	case err == nil:
		return v.redirect("/people/waiting?done=decided")
	case errors.Is(err, ops.ErrNotFound) || problem == "":
		return err
	default:
		return c.identitiesPage(v, http.StatusUnprocessableEntity, problem)
	}
}
