package policy

import (
	"maps"
	"slices"
	"strings"

	"weft/overlay/api"
	"weft/overlay/cert"
)

// People is what a policy needs to know about the people of a network. A certificate names a
// person, but not their groups, whether they are suspended, or whether the device has to be
// signed in again. So nodes get rules that name people instead of groups.
type People struct {
	// Users are all people of the network, by name.
	Users map[string]Person
	// Tags are all tags that devices carry. They are needed only while a person is suspended
	// or a device is overdue.
	Tags []string
}

// Person is one of People.
type Person struct {
	Groups    []string
	Suspended bool
	// Overdue are the devices without tags that reach nothing until they are signed in
	// again, sorted. If they are more than maxOverdue, all of the person's devices without
	// tags reach nothing.
	Overdue []cert.NodeID
}

// maxOverdue bounds how many devices of one person the configs of nodes list as overdue.
const maxOverdue = 100

// Audience holds, for each rule of a policy, whom it lets in, in the form that nodes get:
// groups are replaced by their members ("user:NAME"), suspended people are left out, and
// while a person is suspended or a device is overdue, "*" is replaced by each person and each
// tag. For people with overdue devices, rules let in only their other devices
// (api.NotOverdue). An Audience is immutable.
type Audience struct {
	from    [][]string // by rule
	silent  map[string]bool
	overdue map[string][]cert.NodeID // by the name of the person, who is not silent
	each    bool                     // a rule names each person and tag instead of "*"
	members map[string][]string      // by group that rules name: its people, sorted
}

// Audience computes whom the rules let in.
func (p *Policy) Audience(people People) *Audience {
	a := &Audience{from: make([][]string, len(p.compiled.rules)), silent: map[string]bool{}, overdue: map[string][]cert.NodeID{}, members: map[string][]string{}}
	var all []string // what "*" is replaced by
	names := slices.Sorted(maps.Keys(people.Users))
	for _, name := range names {
		u := people.Users[name]
		if u.Suspended || len(u.Overdue) > maxOverdue {
			a.silent[name] = true
			continue
		}
		if len(u.Overdue) > 0 {
			a.overdue[name] = u.Overdue
		}
		all = append(all, a.word(name))
		for _, g := range u.Groups {
			if _, named := p.compiled.selectors[selector{"group", g}]; named {
				a.members[g] = append(a.members[g], a.word(name))
			}
		}
	}
	for _, tag := range slices.Sorted(slices.Values(people.Tags)) {
		all = append(all, "tag:"+tag)
	}
	for i, r := range p.compiled.rules {
		plain := true
		for _, word := range r.words {
			plain = plain && !a.changes(word)
		}
		if plain {
			a.from[i] = r.words
			continue
		}
		a.each = a.each || a.narrows() && slices.Contains(r.words, "*")
		var list []string
		for _, word := range r.words {
			kind, name, _ := strings.Cut(word, ":")
			switch {
			case word == "*" && a.narrows():
				list = append(list, all...)
			case kind == "group":
				list = append(list, a.members[name]...)
			case kind == "user" && a.silent[name]:
			case kind == "user" && a.overdue[name] != nil:
				list = append(list, a.word(name))
			default:
				list = append(list, word)
			}
		}
		slices.Sort(list)
		a.from[i] = slices.Compact(list)
	}
	return a
}

// narrows reports whether "*" does not stand for everybody.
func (a *Audience) narrows() bool { return len(a.silent)+len(a.overdue) > 0 }

// word returns the selector for a person who is not silent.
func (a *Audience) word(name string) string {
	if a.overdue[name] != nil {
		return api.NotOverdue + "user:" + name
	}
	return "user:" + name
}

// Overdue returns the overdue devices of the people whom these rules select with
// api.NotOverdue.
func (a *Audience) Overdue(rules []api.Rule) (ids []cert.NodeID) {
	seen := map[string]bool{}
	for _, r := range rules {
		for _, word := range r.From {
			name, ok := strings.CutPrefix(strings.TrimPrefix(word, api.AESOnly), api.NotOverdue+"user:")
			if ok && !seen[name] {
				seen[name] = true
				ids = append(ids, a.overdue[name]...)
			}
		}
	}
	return ids
}

// NamesEach reports whether rules name each person and each tag instead of "*". If so, a new
// person or tag needs new rules.
func (a *Audience) NamesEach() bool { return a.each }

// changes reports whether a word of From is replaced by others in the rules that nodes get.
func (a *Audience) changes(word string) bool {
	kind, name, _ := strings.Cut(word, ":")
	return word == "*" && a.narrows() || kind == "group" || kind == "user" && (a.silent[name] || a.overdue[name] != nil)
}

// selfFrom returns who reaches dst by a rule to "self": its owner; and if the rule also names
// dst directly (direct), all of from. words are the From of the rule.
func (a *Audience) selfFrom(words, from []string, dst Subject, direct bool) (list []string) {
	if direct {
		list = append(list, from...)
	}
	own := a.word(dst.User)
	if a.silent[dst.User] || slices.Contains(list, own) {
		return list
	}
	if slices.ContainsFunc(words, func(s string) bool {
		return s == "*" || s == "user:*" || s == "user:"+dst.User || strings.HasPrefix(s, "group:") && slices.Contains(dst.Groups, s[len("group:"):])
	}) {
		list = append(list, own)
	}
	return list
}

// NamesGroup reports whether a rule names a group.
func (p *Policy) NamesGroup(group string) bool {
	_, ok := p.compiled.selectors[selector{"group", group}]
	return ok
}
