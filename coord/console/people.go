package console

import (
	"cmp"
	"net/http"
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

// words are what people separate by spaces or commas.
func words(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return r == ' ' || r == ',' })
}
