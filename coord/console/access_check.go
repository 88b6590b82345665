package console

import (
	"slices"
	"strings"

	"weft/coord/ops"
	"weft/coord/policy"
)

// lineView is something about a line of the text.
type lineView struct {
	Line, Column int // 0 for the whole
	Text, Source string
}

// checkView is what a policy would change.
type checkView struct {
	Tests    int
	Warnings []lineView
	Sides    []sideView
	None     bool // nobody gains or loses anything
	Tags     []tagView
}

// tagView says who may give a tag, beside owners and admins; Was is before a change.
type tagView struct {
	Tag      string
	Who, Was []string
}

type sideView struct {
	Title string
	Gain  bool
	List  []changeView
	More  int
}

type changeView struct {
	From, To, Scope, Ports string
}

// linesOf are remarks with the lines that they are about.
func linesOf(text string, list []policy.Remark) (out []lineView) {
	lines := strings.Split(text, "\n")
	for _, r := range list {
		l := lineView{Line: r.Line, Column: r.Column, Text: cleanLong(r.Text)}
		if r.Line > 0 && r.Line <= len(lines) {
			l.Source = clean(strings.TrimSpace(lines[r.Line-1]))
		}
		out = append(out, l)
	}
	return out
}

// cleanLong is clean for a sentence.
func cleanLong(s string) string {
	var b strings.Builder
	for r := []rune(s); len(r) > 0; r = r[min(len(r), 100):] {
		b.WriteString(clean(string(r[:min(len(r), 100)])))
		if b.Len() > 2000 {
			break
		}
	}
	return b.String()
}

func newCheckView(text string, r ops.PolicyCheck) *checkView {
	view := &checkView{Tests: r.Tests, Warnings: linesOf(text, r.Warnings), None: len(r.Gains)+len(r.Losses)+len(r.AESAdded)+len(r.AESRemoved)+len(r.TagOwners) == 0}
	for _, t := range r.TagOwners {
		view.Tags = append(view.Tags, tagView{clean(t.Tag), ruleWords(t.After), ruleWords(t.Before)})
	}
	for _, s := range []struct {
		title string
		gain  bool
		list  []ops.AccessChange
		more  int
	}{
		{"Who gains what", true, r.Gains, r.MoreGains},
		{"Who loses what", false, r.Losses, r.MoreLosses},
		{"What would need AES", true, r.AESAdded, r.MoreAESAdded},
		{"What would no longer need AES", false, r.AESRemoved, r.MoreAESRemoved},
	} {
		if len(s.list) == 0 {
			continue
		}
		side := sideView{Title: s.title, Gain: s.gain, More: s.more}
		for _, c := range s.list {
			side.List = append(side.List, newChangeView(c))
		}
		view.Sides = append(view.Sides, side)
	}
	return view
}

func newChangeView(c ops.AccessChange) changeView {
	some := func(names []string, count int, noun string) string {
		text := strings.Join(cleanAll(names), ", ")
		switch more := count - len(names); {
		case more > 0 && text == "":
			return plural(more, noun)
		case more > 0:
			return text + " and " + plural(more, "more "+noun)
		}
		return text
	}
	var from []string
	if c.From.UserCount > 0 {
		from = append(from, some(c.From.Users, c.From.UserCount, "user"))
	}
	if c.From.DeviceCount > 0 {
		from = append(from, some(c.From.Devices, c.From.DeviceCount, "device"))
	}
	view := changeView{From: strings.Join(from, ", "), To: some(c.To.Devices, c.To.DeviceCount, "device"), Ports: clean(strings.Join(c.Ports, ", "))}
	if slices.Equal(c.Ports, []string{"*"}) {
		view.Ports = "everything"
	}
	switch c.Scope {
	case "own":
		view.Scope = "each the own"
	case "others":
		view.Scope = "each those of others"
	}
	return view
}
