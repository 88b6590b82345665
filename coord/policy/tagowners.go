package policy

import (
	"maps"
	"slices"
	"strings"

	"github.com/tailscale/hujson"

	"weft/overlay/cert"
)

// maxTagOwners bounds the number of tags with owners.
const maxTagOwners = 1000

// tagRoles are the words of "role:".
const tagRoles = "owner, admin, operator, auditor, member"

// tagOwners reads the field tagOwners: {"tag:NAME": ["user:NAME", ...]}.
func (r *reader) tagOwners(p *Policy, v hujson.Value) {
	if !r.is(v, '{') {
		return
	}
	p.TagOwners = map[string][]string{}
	members := v.Value.(*hujson.Object).Members
	if len(members) > maxTagOwners {
		r.wrong(v.StartOffset, "%d tags with owners, at most %d", len(members), maxTagOwners)
		return
	}
	for _, m := range members {
		word := m.Name.Value.(hujson.Literal).String()
		tag, ok := strings.CutPrefix(word, "tag:")
		_, twice := p.TagOwners[tag]
		switch {
		case !ok || !cert.ValidWord(tag):
			r.wrong(m.Name.StartOffset, "tagOwners: %s: want tag:NAME", quoted(word))
			continue
		case twice:
			r.wrong(m.Name.StartOffset, "the field %s occurs twice", quoted(word))
			continue
		}
		r.name(p, word, m.Name.StartOffset)
		words, offsets := r.words(m.Value)
		p.TagOwners[tag] = append([]string{}, words...)
		for i, w := range words {
			kind, name, _ := strings.Cut(w, ":")
			switch {
			case kind == "role" && slices.Contains(strings.Split(tagRoles, ", "), name):
			case (kind == "user" || kind == "group") && cert.ValidWord(name):
				r.name(p, w, offsets[i+1])
			default:
				r.wrong(offsets[i+1], "tagOwners: %s: want user:NAME, group:NAME, or role: with one of %s", quoted(w), tagRoles)
			}
		}
	}
}

// OwnsTag reports whether the policy lets a user with these groups and this role give a tag.
// listed reports whether the policy has owners for the tag at all.
func (p *Policy) OwnsTag(tag, user string, groups []string, role string) (owns, listed bool) {
	list, listed := p.TagOwners[tag]
	return slices.ContainsFunc(list, func(w string) bool {
		kind, name, _ := strings.Cut(w, ":")
		switch kind {
		case "user":
			return name == user
		case "group":
			return slices.Contains(groups, name)
		}
		return name == role
	}), listed
}

// TagChange is a tag whose owners differ between two policies. Neither list is nil.
type TagChange struct {
	Tag    string   `json:"tag"`
	Before []string `json:"before"`
	After  []string `json:"after"`
}

// DiffTagOwners returns the tags whose owners differ between two policies, by tag.
func DiffTagOwners(before, after *Policy) (list []TagChange) {
	tags := slices.Concat(slices.Collect(maps.Keys(before.TagOwners)), slices.Collect(maps.Keys(after.TagOwners)))
	slices.Sort(tags)
	for _, tag := range slices.Compact(tags) {
		b, was := before.TagOwners[tag]
		a, is := after.TagOwners[tag]
		if was != is || !slices.Equal(a, b) {
			list = append(list, TagChange{tag, append([]string{}, b...), append([]string{}, a...)})
		}
	}
	return list
}
