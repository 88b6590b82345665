package console

import (
	"errors"
	"html/template"
	"net/http"
	"slices"
	"strings"

	"weft/coord/ops"
)

// personPage is the page of one user.
type personPage struct {
	personView
	Change     bool // what is below can be changed by who looks
	Self       bool
	Roles      []string
	NewRole    string
	NewTags    string
	NewDisplay string
	Match      string
	OwnGroups  []groupChoice
	New        bool          // could be invited
	Link       string        // of the invitation, for the session that made it
	OnlyHere   bool          // the link is of no use on other machines
	QR         template.HTML // the same
	Problem    string        // with editing
	Danger     string        // with deleting
}

// Terminal is how the same is done on a command line.
func (p personPage) Terminal() ([]commandView, error) {
	stands, verb := "Suspend", "suspend "
	if p.Suspended.Machine != "" {
		stands, verb = "Resume", "resume "
	}
	return commandList(
		"Change the role", "weft-server users edit "+p.Name+" --role ROLE",
		"Change the groups", "weft-server users edit "+p.Name+" --add-group GROUP --remove-group GROUP",
		stands, "weft-server users "+verb+p.Name,
		"Delete", "weft-server users delete "+p.Name,
	)
}

type groupChoice struct {
	Name string
	In   bool
}

var roleNames = []string{string(ops.RoleMember), string(ops.RoleAuditor), string(ops.RoleOperator), string(ops.RoleAdmin), string(ops.RoleOwner)}

// roleChoices are the roles that somebody may give.
func roleChoices(a ops.Actor) []string {
	return slices.DeleteFunc(slices.Clone(roleNames), func(r string) bool { return !a.Gives(ops.Role(r)) })
}

func (c *Console) person(v *visit) error {
	return c.personPage(v, http.StatusOK, v.r.URL.Query().Get("name"), personPage{})
}

func (c *Console) personPage(v *visit, status int, name string, page personPage) error {
	if !v.actor.ReadsPeople() {
		return ops.ErrForbidden
	}
	u, err := c.ops.User(v.ctx(), v.actor, cut(name, 255))
	if err != nil {
		return err
	}
	list, err := c.ops.Groups(v.ctx(), v.actor)
	if err != nil {
		return err
	}
	page.Change, page.Self = v.actor.ChangesUser(u.User), u.ID == v.actor.UserID
	var in []string
	for _, g := range list {
		member := slices.Contains(g.Members, u.Name)
		if member {
			in = append(in, g.Name)
		}
		if g.Created != nil {
			page.OwnGroups = append(page.OwnGroups, groupChoice{clean(g.Name), member})
		}
	}
	page.personView = c.personView(u, in)
	page.Roles = roleChoices(v.actor)
	if page.Problem == "" {
		page.NewRole, page.NewTags, page.NewDisplay, page.Match = u.Role, strings.Join(u.Tags, " "), asTyped([]string{u.DisplayName}), ops.UserRevision(u.User)
	}
	page.New = u.New && u.Suspended == nil
	if u.Invited != nil {
		if page.Link = c.heldToken("invitation "+u.ID, v.session.Hash); page.Link != "" {
			page.OnlyHere = onlyHere(page.Link)
			if page.QR, err = qrSVG(page.Link, "QR code of the invitation"); err != nil {
				c.log.Warn("draw QR code", "err", err)
			}
		}
	}
	return c.render(v, status, "person", page)
}

// peopleProblem is problemText with what somebody may not do.
func peopleProblem(err error) string {
	if errors.Is(err, ops.ErrForbidden) && strings.Contains(err.Error(), "your own") {
		return forbiddenText(err)
	}
	if errors.Is(err, ops.ErrChanged) {
		return "Somebody else changed this meanwhile. Look at it again, then repeat."
	}
	return problemText(err)
}

func formName(v *visit) string { return cut(v.r.PostForm.Get("name"), 255) }

// changedPerson leads back to the page of somebody, or says there what is wrong.
func (c *Console) changedPerson(v *visit, err error, done string, page personPage) error {
	problem := peopleProblem(err)
	switch {
	case err == nil:
		return v.redirect(personPath(formName(v)) + "&done=" + done)
	case problem == "":
		return err
	}
	page.Problem = cleanLong(problem)
	return c.personPage(v, http.StatusUnprocessableEntity, formName(v), page)
}

func (c *Console) editPerson(v *visit) error {
	f := v.r.PostForm
	role, tags, display := ops.Role(f.Get("role")), words(cut(f.Get("tags"), 2000)), strings.TrimSpace(cut(f.Get("display"), 200))
	_, err := ops.Do(v.ctx(), c.ops, v.actor, ops.EditUser{Name: formName(v), Match: []string{f.Get("match")}, Role: &role, Tags: &tags, DisplayName: &display})
	return c.changedPerson(v, err, "person", personPage{NewRole: string(role), NewTags: clean(strings.Join(tags, " ")), NewDisplay: clean(display), Match: clean(f.Get("match"))})
}

func (c *Console) suspendPerson(v *visit) error {
	u, err := ops.Do(v.ctx(), c.ops, v.actor, ops.SuspendUser{Name: formName(v)})
	if err == nil {
		c.endStreams(func(s *stream) bool { return s.user == u.ID })
	}
	return c.changedPerson(v, err, "suspended", personPage{})
}

func (c *Console) resumePerson(v *visit) error {
	_, err := ops.Do(v.ctx(), c.ops, v.actor, ops.ResumeUser{Name: formName(v)})
	return c.changedPerson(v, err, "resumed", personPage{})
}

// setPersonsGroups puts somebody into the groups that were chosen, and out of those that no
// longer are. What others changed since the page was drawn stays.
func (c *Console) setPersonsGroups(v *visit) error {
	was, chosen := v.r.PostForm["was"], v.r.PostForm["group"]
	e := ops.EditUser{Name: formName(v)}
	for _, g := range chosen {
		if !slices.Contains(was, g) {
			e.AddGroups = append(e.AddGroups, g)
		}
	}
	for _, g := range was {
		if !slices.Contains(chosen, g) {
			e.RemoveGroups = append(e.RemoveGroups, g)
		}
	}
	_, err := ops.Do(v.ctx(), c.ops, v.actor, e)
	if errors.Is(err, ops.ErrNotFound) && ops.KindOf(err) == ops.KindGroup {
		return c.personPage(v, http.StatusUnprocessableEntity, e.Name, personPage{Problem: "Somebody deleted a group meanwhile. Nothing was changed."})
	}
	return c.changedPerson(v, err, "person", personPage{})
}

// deletePerson wants the name typed, and to know what becomes of the devices.
func (c *Console) deletePerson(v *visit) error {
	f := v.r.PostForm
	name := formName(v)
	refuse := func(problem string) error {
		return c.personPage(v, http.StatusUnprocessableEntity, name, personPage{Danger: cleanLong(problem)})
	}
	if strings.TrimSpace(f.Get("typed")) != name {
		return refuse("That is not the name. Nothing was deleted.")
	}
	d := ops.DeleteUser{Name: name, DeleteDevices: f.Get("devices") == "delete"}
	if f.Get("devices") == "give" {
		if d.DevicesTo = strings.TrimSpace(cut(f.Get("to"), 255)); d.DevicesTo == "" {
			return refuse("Name who gets the devices. Nothing was deleted.")
		}
	}
	u, err := ops.Do(v.ctx(), c.ops, v.actor, d)
	switch problem := peopleProblem(err); {
	case err == nil:
		c.endStreams(func(s *stream) bool { return s.user == u.ID })
		return v.redirect("/people?done=nobody")
	case errors.Is(err, ops.ErrTaken):
		return refuse("Devices or keys belong to this user. Say what becomes of them. Nothing was deleted.")
	case problem != "":
		return refuse(problem)
	case errors.Is(err, ops.ErrNotFound) && d.DevicesTo != "":
		return refuse("There is no user called " + d.DevicesTo + ". Nothing was deleted.")
	}
	return err
}
