package console

import (
	"cmp"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"weft/coord/ops"
	"weft/coord/store"
)

// How much of each kind the palette finds, and in all.
const (
	foundDevices = 6
	foundPeople  = 3
	foundMost    = 12
	// Of this many devices those are shown first whose names begin with what was typed.
	foundAmong = 24
)

// found is one thing that the palette leads to, or does.
type found struct {
	Text, Note  string
	Href        string // where it leads, or what it posts to when Post is set
	Post        bool
	Name, Value string // of what it posts
	Status      string // of a device
	Icon        string // of the others

	words string // by which it is found too
}

type foundKind struct {
	Text string
	List []found
}

type paletteView struct {
	Text  string
	Kinds []foundKind
}

// Count is how much was found.
func (p paletteView) Count() (n int) {
	for _, k := range p.Kinds {
		n += len(k.List)
	}
	return n
}

// palette finds devices, people, pages and actions: as a page of its own, and as the list
// that the dialog of every page fetches while somebody types.
func (c *Console) palette(v *visit) error {
	text := strings.ToValidUTF8(cut(strings.TrimSpace(v.r.URL.Query().Get("q")), 100), "")
	view := paletteView{Text: clean(text)}
	words := strings.Fields(strings.ToLower(text))
	room := foundMost
	add := func(kind string, list []found) {
		if list = list[:min(len(list), room)]; len(list) > 0 {
			view.Kinds, room = append(view.Kinds, foundKind{kind, list}), room-len(list)
		}
	}
	pages := placesOf(v.actor)
	if len(words) == 0 {
		pages = pages[:len(sectionsOf(v.actor))]
	} else {
		devices, err := c.foundDevices(v, text)
		if err != nil {
			return err
		}
		people, err := c.foundPeople(v, words)
		if err != nil {
			return err
		}
		add("Devices", devices)
		add("People", people)
	}
	add("Pages", matching(pages, words))
	add("Actions", matching(actionsOf(v.actor, c.theme(v.r)), words))
	if v.partial() {
		return c.fragment(v, "palette", "found", view)
	}
	return c.render(v, http.StatusOK, "palette", view)
}

// foundDevices begins with the one that has exactly this name or address, today or before.
func (c *Console) foundDevices(v *visit, text string) ([]found, error) {
	ctx := ops.Passive(v.ctx()) // no device is woken for each letter
	list, err := c.ops.Devices(ctx, v.actor, ops.DeviceQuery{Text: text, Limit: foundAmong})
	if err != nil {
		return nil, err
	}
	devices := list.Devices
	start := strings.ToLower(text)
	slices.SortStableFunc(devices, func(a, b ops.Device) int {
		return cmp.Compare(beginsWith(b.Name, start), beginsWith(a.Name, start))
	})
	if d, err := c.ops.Device(ctx, v.actor, text); err == nil {
		devices = slices.DeleteFunc(devices, func(o ops.Device) bool { return o.ID == d.ID })
		devices = slices.Insert(devices, 0, d)
	}
	more := max(list.Total, len(devices)) > foundDevices
	if more {
		devices = devices[:min(len(devices), foundDevices-1)]
	}
	var out []found
	for _, d := range devices {
		view := c.deviceView(d)
		f := found{Text: view.Name, Note: view.IPv4, Href: view.Path, Status: "offline"}
		if view.Online {
			f.Status = "online"
		}
		out = append(out, f)
	}
	if more {
		out = append(out, found{Text: "All " + plural(list.Total, "device") + " that match", Href: "/devices?" + url.Values{"q": {text}}.Encode(), Icon: "devices"})
	}
	return out, nil
}

// beginsWith is 1 for yes.
func beginsWith(name, start string) int {
	if strings.HasPrefix(strings.ToLower(name), start) {
		return 1
	}
	return 0
}

func (c *Console) foundPeople(v *visit, words []string) ([]found, error) {
	if !v.actor.ReadsPeople() {
		return nil, nil
	}
	users, err := c.ops.Users(v.ctx(), v.actor)
	if err != nil {
		return nil, err
	}
	var out []found
	for _, u := range users {
		name := strings.ToLower(u.Name + "\n" + u.DisplayName)
		if slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(name, w) }) {
			continue
		}
		f := found{Text: clean(cmp.Or(u.DisplayName, u.Name)), Note: u.Role, Href: personPath(u.Name), Icon: "account"}
		if u.DisplayName != "" {
			f.Note = clean(u.Name) + ", " + u.Role
		}
		if u.Kind == store.Service {
			f.Note += ", a program"
		}
		if out = append(out, f); len(out) == foundPeople {
			break
		}
	}
	return out, nil
}

// placesOf are the pages that an actor has a use for.
func placesOf(a ops.Actor) []found {
	var list []found
	for _, s := range sectionsOf(a) {
		list = append(list, found{Text: s.Text, Href: s.Href, Icon: s.ID})
	}
	under := func(id, in string, pages ...found) {
		for _, p := range pages {
			if !slices.ContainsFunc(list, func(f found) bool { return f.Href == p.Href && f.Text == p.Text }) {
				p.Note, p.Icon = in, id
				list = append(list, p)
			}
		}
	}
	for _, t := range pagesOf(a, networkPages, "") {
		under("network", "Network", found{Text: t.Text, Href: t.Href})
	}
	if a.ReadsPeople() {
		under("people", "People", found{Text: "Groups", Href: "/people/groups"}, found{Text: "Waiting for approval", Href: "/people/waiting"})
	}
	if a.ReadsAudit() {
		under("activity", "Activity", found{Text: "Introductions", Href: "/activity/introductions"})
	}
	for _, t := range pagesOf(a, settingsPages, "") {
		under("settings", "Settings", found{Text: t.Text, Href: t.Href})
	}
	under("settings", "Settings", found{Text: "Your account", Href: "/account", words: "password passkeys codes sessions profile"})
	return list
}

// actionsOf are what an actor can begin from anywhere; theme is the one that is chosen.
func actionsOf(a ops.Actor, theme string) []found {
	var list, rest []found
	if a.MaySome("key.create") {
		list = append(list, found{Text: "Add a device", Href: "/add/device", Icon: "plus", words: "new join install token raspberry server"})
		rest = append(rest,
			found{Text: "Add a laptop", Href: "/add/laptop", Icon: "plus", words: "new join computer"},
			found{Text: "Let a device in", Href: "/approve", Icon: "plus", words: "approve code request"},
			found{Text: "New key", Href: "/network/keys/new", Icon: "plus", words: "create token"})
	}
	if a.Invites() {
		list = append(list, found{Text: "Invite somebody", Href: "/people/invite", Icon: "people", words: "add new user person"})
	}
	for _, t := range themes(theme) {
		if !t.Here {
			list = append(list, found{Text: "Theme: " + strings.ToLower(t.Text), Href: "/theme", Post: true, Name: "theme", Value: t.Value, Icon: t.Value, words: "mode colours"})
		}
	}
	list = append(list, found{Text: "Sign out", Href: "/sign-out", Post: true, Icon: "out", words: "log logout leave end session"})
	return append(list, rest...)
}

// matching are those of which every word that was typed begins one of theirs.
func matching(list []found, words []string) []found {
	return slices.DeleteFunc(list, func(f found) bool {
		theirs := strings.FieldsFunc(strings.ToLower(f.Text+" "+f.Note+" "+f.words), func(r rune) bool { return r == ' ' || r == ':' })
		return slices.ContainsFunc(words, func(w string) bool {
			return !slices.ContainsFunc(theirs, func(t string) bool { return strings.HasPrefix(t, w) })
		})
	})
}
