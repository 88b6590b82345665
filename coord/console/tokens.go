package console

import (
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"weft/coord/ops"
	"weft/coord/store"
)

// maxTokensShown is how many tokens the page shows, of those that work and of the others.
const maxTokensShown = 200

// tokenView is a token of the API.
type tokenView struct {
	ID, Description string
	Service, Path   string
	Role            string
	Tags            []string
	Maker           string
	Created         stamp
	Expires         stamp // without a time: never
	Used            stamp
	From            []string
	State           string // "" while it works
}

type tokensView struct {
	Change     bool
	Live, Past []tokenView
	More       int // that are not shown
	Services   int
	Shown      *shownView // the one that was made just now
}

type shownView struct{ Token, Service, ID string }

func (c *Console) tokens(v *visit) error {
	if err := only(v.actor, "token.read"); err != nil {
		return err
	}
	list, err := c.ops.Tokens(v.ctx(), v.actor, "")
	if err != nil {
		return hide(err)
	}
	services, err := c.services(v)
	if err != nil {
		return err
	}
	view := tokensView{Change: v.actor.May("token.create"), Services: len(services)}
	of := map[string]store.UserRow{}
	for _, u := range services {
		of[u.ID] = u
	}
	now := c.now()
	for _, t := range list {
		tv := c.tokenView(t, now)
		if u, ok := of[t.UserID]; ok {
			tv.Role, tv.Tags = u.Role, cleanAll(u.Tags)
		}
		to := &view.Live
		if tv.State == "revoked" || tv.State == "expired" {
			to = &view.Past
		}
		if len(*to) == maxTokensShown {
			view.More++
			continue
		}
		*to = append(*to, tv)
		if word := c.heldToken("token "+t.ID, v.session.Hash); word != "" && view.Shown == nil && v.r.URL.Query().Get("made") == t.ID {
			view.Shown = &shownView{word, tv.Service, tv.ID}
		}
	}
	return c.render(v, http.StatusOK, "tokens", view)
}

func (c *Console) tokenView(t store.Token, now time.Time) tokenView {
	tv := tokenView{
		ID: clean(t.ID), Description: clean(t.Description), Service: clean(t.User), Path: personPath(t.User), Maker: clean(t.Maker),
		Created: c.stamp(t.Created), Expires: c.stamp(orZero(t.Expires)), Used: c.stamp(orZero(t.Used)), From: cleanAll(t.From),
	}
	switch {
	case t.Revoked != nil:
		tv.State = "revoked"
	case !t.Live(now):
		tv.State = "expired"
	case t.Suspended:
		tv.State = "suspended"
	}
	return tv
}

// services are the users that are programs, by name.
func (c *Console) services(v *visit) ([]store.UserRow, error) {
	users, err := c.ops.Users(v.ctx(), v.actor)
	return slices.DeleteFunc(users, func(u store.UserRow) bool { return u.Kind != store.Service }), err
}

// newTokenView is the form for a token, and the one for a service that gets it.
type newTokenView struct {
	Services []serviceChoice
	Note     string
	Life     string
	Lives    []lifeChoice
	Problem  string

	Name, Role, Tags string
	Roles            []string
	ServiceProblem   string
}

type serviceChoice struct {
	Name, Text string
	Here       bool
}

func (c *Console) newToken(v *visit) error {
	return c.newTokenPage(v, http.StatusOK, cut(v.r.URL.Query().Get("service"), 255), newTokenView{Role: string(ops.RoleMember)})
}

func (c *Console) newTokenPage(v *visit, status int, service string, view newTokenView) error {
	if err := only(v.actor, "token.create"); err != nil {
		return err
	}
	// Before a form is filled in that would be refused.
	if err := c.ops.CheckFresh(v.actor, ops.CreateToken{}); err != nil && v.r.Method == http.MethodGet {
		return err
	}
	services, err := c.services(v)
	if err != nil {
		return err
	}
	for _, u := range services {
		text := clean(u.Name) + ", " + u.Role
		if len(u.Tags) > 0 {
			text += " for " + strings.Join(cleanAll(u.Tags), ", ")
		}
		if u.Suspended == nil {
			view.Services = append(view.Services, serviceChoice{asTyped([]string{u.Name}), text, u.Name == service})
		}
	}
	if view.Life == "" {
		view.Life = "90d"
	}
	for _, l := range lives {
		view.Lives = append(view.Lives, lifeChoice{l.value, l.text, l.value == view.Life})
	}
	view.Lives = append(view.Lives, lifeChoice{"never", "Until it is revoked", view.Life == "never"})
	view.Roles = slices.DeleteFunc(roleChoices(v.actor), func(r string) bool { return r == string(ops.RoleOwner) })
	return c.render(v, status, "newtoken", view)
}

// createToken makes a token and leads to the list, which shows it to this session.
func (c *Console) createToken(v *visit) error {
	f := v.r.PostForm
	service := cut(f.Get("service"), 255)
	view := newTokenView{Note: strings.TrimSpace(cut(f.Get("note"), 200)), Life: f.Get("life"), Role: string(ops.RoleMember)}
	make := ops.CreateToken{User: service, Description: view.Note, Endless: view.Life == "never"}
	for _, l := range lives {
		if l.value == view.Life {
			make.Life = l.life
		}
	}
	refuse := func(problem string) error {
		view.Problem, view.Note = problem, asTyped([]string{strings.ToValidUTF8(view.Note, "")})
		return c.newTokenPage(v, http.StatusUnprocessableEntity, service, view)
	}
	if make.Life == 0 && !make.Endless {
		return refuse("Choose how long the token is good for.")
	}
	made, err := ops.Do(v.ctx(), c.ops, v.actor, make)
	switch problem := peopleProblem(err); {
	case err == nil:
		c.holdToken("token "+made.ID, v.session.Hash, made.Token)
		return v.redirect("/settings/tokens?made=" + url.QueryEscape(made.ID))
	case errors.Is(err, ops.ErrNotFound):
		return refuse("Choose the service that gets the token.")
	case errors.Is(err, ops.ErrSuspended) && v.actor.May("token.create"):
		return refuse("That service is suspended. Resume it first, on its page.")
	case problem != "":
		return refuse(cleanLong(problem))
	}
	return err
}

// createService makes a user that is a program, and leads to the form for its token.
func (c *Console) createService(v *visit) error {
	f := v.r.PostForm
	view := newTokenView{Name: strings.TrimSpace(cut(f.Get("name"), 200)), Role: f.Get("role"), Tags: cut(f.Get("tags"), 2000)}
	u, err := ops.Do(v.ctx(), c.ops, v.actor, ops.CreateUser{Name: view.Name, Service: true, Role: ops.Role(view.Role), Tags: words(view.Tags)})
	if problem := peopleProblem(err); problem != "" {
		view.ServiceProblem = cleanLong(problem)
		view.Name, view.Tags = clean(strings.ToValidUTF8(view.Name, "")), clean(strings.ToValidUTF8(view.Tags, ""))
		return c.newTokenPage(v, http.StatusUnprocessableEntity, "", view)
	}
	if err != nil {
		return err
	}
	return v.redirect("/settings/tokens/new?service=" + url.QueryEscape(u.Name) + "&done=service")
}

func (c *Console) revokeToken(v *visit) error {
	id, err := v.pathID()
	if err != nil {
		return err
	}
	if _, err := ops.Do(v.ctx(), c.ops, v.actor, ops.RevokeToken{ID: id}); err != nil {
		return err
	}
	c.dropToken("token " + id)
	return v.redirect("/settings/tokens?done=notoken")
}
