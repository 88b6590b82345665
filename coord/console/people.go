package console

import (
	"cmp"
	"errors"
	"html/template"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"weft/coord/ops"
	"weft/coord/store"
)

const peoplePerPage = 50

// personView is a user as lists and the own page have it.
type personView struct {
	Name, Display, Path string
	Service             bool
	Role                string
	Tags, Groups        []string
	Devices             int
	SignedIn, Created   stamp
	Invited             stamp // until when, if somebody is
	Suspended           stamp
	You                 bool
}

type peopleView struct {
	List       []personView
	Text, Is   string
	Filters    []tab
	Total, All int
	From, To   string
	Prev, Next string
	Invites    bool
	Waiting    int // who signed in at a provider and waits for approval
}

// standings are what the list of people can be narrowed to.
var standings = []struct {
	id, text string
	is       func(store.UserRow) bool
}{
	{"invited", "Invited", func(u store.UserRow) bool { return u.Invited != nil && u.Suspended == nil }},
	{"suspended", "Suspended", func(u store.UserRow) bool { return u.Suspended != nil }},
	{"program", "Programs", func(u store.UserRow) bool { return u.Kind == store.Service }},
}

// RoleText is the role with a capital.
func (p personView) RoleText() string {
	role := cmp.Or(p.Role, string(ops.RoleMember))
	return strings.ToUpper(role[:1]) + role[1:]
}

// TotalText is the number of matches in words.
func (v peopleView) TotalText() string { return plural(v.Total, "user") }

func (c *Console) personView(u store.UserRow, groups []string) personView {
	p := personView{
		Name: clean(u.Name), Display: clean(u.DisplayName), Path: personPath(u.Name), Service: u.Kind == store.Service, Role: u.Role,
		Tags: cleanAll(u.Tags), Groups: cleanAll(groups), Devices: u.Devices, Created: c.stamp(u.Created),
	}
	for at, t := range map[*stamp]*time.Time{&p.SignedIn: u.SignedIn, &p.Invited: u.Invited, &p.Suspended: u.Suspended} {
		if t != nil {
			*at = c.stamp(*t)
		}
	}
	return p
}

// personPath is the page of a user. A name is no part of the path, since it may be "..".
func personPath(name string) string { return "/people/person?name=" + url.QueryEscape(name) }

// people is the list of users.
func (c *Console) people(v *visit) error {
	if !v.actor.ReadsPeople() {
		return ops.ErrForbidden
	}
	users, err := c.ops.Users(v.ctx(), v.actor)
	if err != nil {
		return err
	}
	groups, err := c.groupsOf(v)
	if err != nil {
		return err
	}
	q := v.r.URL.Query()
	text := strings.ToValidUTF8(cut(strings.TrimSpace(q.Get("q")), 100), "")
	view := peopleView{Text: clean(text), All: len(users), Invites: v.actor.Invites()}
	if want := strings.ToLower(text); want != "" {
		users = slices.DeleteFunc(users, func(u store.UserRow) bool {
			return !strings.Contains(strings.ToLower(strings.Join(slices.Concat([]string{u.Name, u.DisplayName, u.Role}, u.Tags, groups[u.Name]), "\n")), want)
		})
	}
	address := func(is string, from int) string {
		q := url.Values{}
		for name, value := range map[string]string{"q": text, "is": is, "from": strconv.Itoa(from)} {
			if value != "" && value != "0" {
				q.Set(name, value)
			}
		}
		return strings.TrimSuffix("/people?"+q.Encode(), "?")
	}
	for _, s := range standings {
		f := tab{Text: s.text, Href: address(s.id, 0)}
		n := 0
		for _, u := range users {
			if s.is(u) {
				n++
			}
		}
		if s.id == q.Get("is") {
			view.Is, f.Here, f.Href = s.id, true, address("", 0)
			users = slices.DeleteFunc(users, func(u store.UserRow) bool { return !s.is(u) })
		}
		f.Text += " " + thousands(n)
		if n > 0 || f.Here {
			view.Filters = append(view.Filters, f)
		}
	}
	view.Total = len(users)
	from := 0
	if n, err := strconv.Atoi(q.Get("from")); err == nil && n > 0 && n < len(users) {
		from = n
	}
	to := min(from+peoplePerPage, len(users))
	for _, u := range users[from:to] {
		view.List = append(view.List, c.personView(u, groups[u.Name]))
	}
	view.From, view.To = thousands(from+1), thousands(to)
	if from > 0 {
		view.Prev = address(view.Is, max(0, from-peoplePerPage))
	}
	if to < len(users) {
		view.Next = address(view.Is, to)
	}
	waiting, err := c.ops.Identities(v.ctx(), v.actor)
	if err != nil {
		return err
	}
	for _, i := range waiting {
		if i.UserID == "" {
			view.Waiting++
		}
	}
	return c.render(v, http.StatusOK, "people", view)
}

// groupsOf is who is in which groups, by the names of users.
func (c *Console) groupsOf(v *visit) (map[string][]string, error) {
	list, err := c.ops.Groups(v.ctx(), v.actor)
	m := map[string][]string{}
	for _, g := range list {
		for _, name := range g.Members {
			m[name] = append(m[name], g.Name)
		}
	}
	return m, err
}

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

// words are what people separate by spaces or commas.
func words(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return r == ' ' || r == ',' })
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

// groupsView is the page of groups.
type groupsView struct {
	List          []groupView
	Change        bool
	Name, Problem string
}

type groupView struct {
	Name    string
	By      []string // providers; none for one that was made here
	Members []memberView
	More    int
}

// ByText is who says who is in it.
func (g groupView) ByText() string {
	if len(g.By) == 0 {
		return "Admins here"
	}
	return strings.Join(g.By, ", ")
}

type memberView struct{ Name, Path string }

const maxMembersShown = 50

func (c *Console) groups(v *visit) error { return c.groupsPage(v, http.StatusOK, groupsView{}) }

func (c *Console) groupsPage(v *visit, status int, view groupsView) error {
	list, err := c.ops.Groups(v.ctx(), v.actor)
	if err != nil {
		return err
	}
	view.Change = v.actor.Invites()
	for _, g := range list {
		gv := groupView{Name: clean(g.Name), By: cleanAll(g.Sources)}
		for i, m := range g.Members {
			if i == maxMembersShown {
				gv.More = len(g.Members) - i
				break
			}
			gv.Members = append(gv.Members, memberView{clean(m), personPath(m)})
		}
		view.List = append(view.List, gv)
	}
	return c.render(v, status, "groups", view)
}

func (c *Console) createGroup(v *visit) error {
	name := strings.TrimSpace(formName(v))
	_, err := ops.Do(v.ctx(), c.ops, v.actor, ops.CreateGroup{Name: name})
	return c.changedGroup(v, err, groupsView{Name: clean(name)})
}

func (c *Console) deleteGroup(v *visit) error {
	_, err := ops.Do(v.ctx(), c.ops, v.actor, ops.DeleteGroup{Name: formName(v)})
	return c.changedGroup(v, err, groupsView{})
}

func (c *Console) changedGroup(v *visit, err error, view groupsView) error {
	switch problem := problemText(err); {
	case err == nil:
		return v.redirect("/people/groups?done=decided")
	case problem == "":
		return err
	default:
		view.Problem = problem
	}
	return c.groupsPage(v, http.StatusUnprocessableEntity, view)
}
