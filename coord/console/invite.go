package console

import (
	"cmp"
	"net/http"
	"net/netip"
	"net/url"
	"strings"

	"weft/coord/ops"
)

// inviteView is the form for an invitation.
type inviteView struct {
	Name, Display, Role, Tags, Life, Problem string
	Roles                                    []string
	Lives                                    []lifeChoice
}

func (c *Console) invitePage(v *visit) error {
	return c.inviteForm(v, http.StatusOK, inviteView{Role: string(ops.RoleMember), Life: "7d"})
}

func (c *Console) inviteForm(v *visit, status int, view inviteView) error {
	if !v.actor.Invites() {
		return ops.ErrForbidden
	}
	view.Roles = roleChoices(v.actor)
	for _, l := range lives[:3] {
		view.Lives = append(view.Lives, lifeChoice{l.value, l.text, l.value == view.Life})
	}
	return c.render(v, status, "invite", view)
}

// invite makes an invitation and leads to the page that shows its link.
func (c *Console) invite(v *visit) error {
	f := v.r.PostForm
	view := inviteView{
		Name: strings.TrimSpace(cut(f.Get("name"), 200)), Display: strings.TrimSpace(cut(f.Get("display"), 200)),
		Role: f.Get("role"), Tags: cut(f.Get("tags"), 2000), Life: f.Get("life"),
	}
	in := ops.InviteUser{Name: view.Name, DisplayName: view.Display, Role: ops.Role(view.Role), Tags: words(view.Tags)}
	for _, l := range lives[:3] {
		if l.value == view.Life {
			in.Life = l.life
		}
	}
	made, err := ops.Do(v.ctx(), c.ops, v.actor, in)
	if problem := peopleProblem(err); problem != "" {
		view.Problem = problem
		view.Name, view.Display, view.Tags = clean(view.Name), clean(view.Display), clean(view.Tags)
		return c.inviteForm(v, http.StatusUnprocessableEntity, view)
	}
	if err != nil {
		return err
	}
	c.holdToken("invitation "+made.ID, v.session.Hash, c.inviteURL(v, made.Path))
	return v.redirect(personPath(made.Name) + "&done=invited")
}

// hereURL is the console's address as the browser has it.
func (c *Console) hereURL(v *visit) url.URL {
	if c.secure(v.r) {
		return url.URL{Scheme: "https", Host: v.r.Host}
	}
	return url.URL{Scheme: "http", Host: v.r.Host}
}

// inviteURL is where somebody who is elsewhere opens the path of an invitation: where this
// browser is if that has a name, the server's public address if not. Where there is neither
// it is the address that the browser has.
func (c *Console) inviteURL(v *visit, path string) string {
	here := c.hereURL(v)
	host := here.Hostname()
	if _, err := netip.ParseAddr(host); err != nil && !ops.OnlyHere(host) {
		return here.String() + path
	}
	return cmp.Or(c.ops.PublicURL(), here.String()) + path
}

// onlyHere reports whether a link leads to the machine that opens it.
func onlyHere(link string) bool {
	u, err := url.Parse(link)
	return err == nil && ops.OnlyHere(u.Hostname())
}

func (c *Console) revokeInvitation(v *visit) error {
	u, err := ops.Do(v.ctx(), c.ops, v.actor, ops.RevokeInvitation{Name: formName(v)})
	if err == nil {
		c.dropToken("invitation " + u.ID)
	}
	return c.changedPerson(v, err, "uninvited", personPage{})
}

// inviteAgain makes another link for somebody who has not signed in yet.
func (c *Console) inviteAgain(v *visit) error {
	made, err := ops.Do(v.ctx(), c.ops, v.actor, ops.InviteUser{Name: formName(v)})
	if err == nil {
		c.holdToken("invitation "+made.ID, v.session.Hash, c.inviteURL(v, made.Path))
	}
	return c.changedPerson(v, err, "invited", personPage{})
}
