package policy

import (
	"maps"
	"slices"
	"strings"

	"weft/overlay/api"
	"weft/overlay/cert"
)

// People are what a policy has to know of the people of a network. Certificates name a
// person, and neither groups, nor whether somebody is suspended, nor whether a device has to
// be signed in again: so nodes get rules that name people.
type People struct {
	// Users has everybody by name, with their groups.
	Users map[string]Person
	// Tags are all that devices carry. They are only asked for while somebody is suspended,
	// or some device is overdue.
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

// maxOverdue bounds what one person adds to the configs of nodes, where overdue devices are
// listed one by one.
const maxOverdue = 100

// Audience is whom the rules of one policy let in, as nodes have it: "user:NAME" in the
// place of groups, nobody who is suspended, and while somebody is, each person and each tag
// in the place of "*". Of who has overdue devices, rules let in the others
// (api.NotOverdue). It is not changed after it was made.
type Audience struct {
	from    [][]string // by rule
	silent  map[string]bool
	overdue map[string][]cert.NodeID // by the name of who is not silent
	each    bool                     // some rule names each person and tag
	members map[string][]string      // of the groups that rules name: their people, sorted
}

// Audience works out whom the rules let in.
func (p *Policy) Audience(people People) *Audience {
	a := &Audience{from: make([][]string, len(p.compiled.rules)), silent: map[string]bool{}, overdue: map[string][]cert.NodeID{}, members: map[string][]string{}}
	var all []string // in the place of "*"
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

// word is somebody who is not silent, as rules name them.
func (a *Audience) word(name string) string {
	if a.overdue[name] != nil {
		return api.NotOverdue + "user:" + name
	}
	return "user:" + name
}

// Overdue returns the devices that rules with api.NotOverdue mean.
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

// NamesEach reports whether rules name each person and each tag in the place of "*": then
// one that is new is in none of them.
func (a *Audience) NamesEach() bool { return a.each }

// changes reports whether a word of From stands for something else at nodes.
func (a *Audience) changes(word string) bool {
	kind, name, _ := strings.Cut(word, ":")
	return word == "*" && a.narrows() || kind == "group" || kind == "user" && (a.silent[name] || a.overdue[name] != nil)
}

// selfFrom returns who reaches dst by a rule to "self": its owner; and everybody else too,
// who are from, if the rule names dst besides. words are those of the rule.
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
