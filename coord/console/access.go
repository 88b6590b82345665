package console

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"weft/coord/ops"
	"weft/coord/policy"
)

// maxPolicyForm bounds a form with a policy, which is longer there than by itself.
const maxPolicyForm = 4 * policy.MaxText

// accessView is the page Access. Texts of the policy are as they were typed: templates
// escape them, and what package policy takes has no character that is not seen.
type accessView struct {
	Rules    []ruleView
	More     int  // rules that are not shown
	Starting bool // nothing was put into force yet
	Change   bool // the visitor may change it

	// The editor.
	Text, Match string
	Former      string // which one of the history the text is, "" for none
	Rows        int
	Problems    []lineView
	Changed     string // somebody else has changed it meanwhile: what to say
	Check       *checkView

	History []policyView
	Can     canView
}

// ruleView is a rule for reading.
type ruleView struct {
	Number          int
	From, To, Ports []string
}

// lineView is something about a line of the text.
type lineView struct {
	Line, Column int // 0 for the whole
	Text, Source string
}

// checkView is what would come of a text.
type checkView struct {
	Tests    int
	Warnings []lineView
	Sides    []sideView
	None     bool // nobody gains or loses anything
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

type policyView struct {
	Number int
	At     stamp
	By     string
	Here   bool // in force
}

// canView is the question, and its answer.
type canView struct {
	From, To     string
	Asked        bool
	Allowed      bool
	Why, Problem string
	Notes        []string
}

const maxRulesShown = 200

// access is the page.
func (c *Console) access(v *visit) error {
	q := v.r.URL.Query()
	view := accessView{}
	if n, err := strconv.Atoi(q.Get("number")); err == nil && n >= 0 {
		p, err := c.ops.FormerPolicy(v.ctx(), v.actor, n)
		if err != nil {
			return err
		}
		view.Text, view.Former = policyOr(p.Text), formerName(n)
	}
	return c.accessPage(v, http.StatusOK, view)
}

func formerName(n int) string {
	if n == 0 {
		return "the policy that a network starts with"
	}
	return fmt.Sprintf("number %d of the history", n)
}

// policyOr is a policy in the editor.
func policyOr(text string) string {
	if text == "" {
		return policy.StartingText
	}
	return text
}

// accessPage draws the page; view has the form that came back, if any.
func (c *Console) accessPage(v *visit, status int, view accessView) error {
	now, err := c.ops.Policy(v.ctx(), v.actor)
	if err != nil {
		return err
	}
	view.Starting = now.Text == ""
	view.Change = v.actor.Role == ops.RoleOwner || v.actor.Role == ops.RoleAdmin
	if view.Text == "" && status == http.StatusOK {
		view.Text = policyOr(now.Text)
	}
	view.Text = strings.Map(func(r rune) rune {
		if policy.Hidden(r) { // the text is refused for it, and shows where it is
			return '\ufffd'
		}
		return r
	}, view.Text)
	if view.Match == "" || view.Changed != "" {
		view.Match = now.Revision // to save is to replace what is in force now
	}
	view.Rows = min(max(strings.Count(view.Text, "\n")+2, 12), 32)
	if p, err := policy.Stored(now.Text); err == nil {
		for i, r := range p.Rules {
			if i == maxRulesShown {
				view.More = len(p.Rules) - i
				break
			}
			view.Rules = append(view.Rules, ruleView{i + 1, ruleWords(r.From), ruleWords(r.To), ruleWords(r.Ports)})
		}
	}
	list, err := c.ops.PolicyHistory(v.ctx(), v.actor)
	if err != nil {
		return err
	}
	for i, p := range list {
		by := clean(p.User)
		if p.Via != "" && p.Via != string(ops.ViaConsole) {
			by += " (" + clean(p.Via) + ")"
		}
		view.History = append(view.History, policyView{p.Number, c.stamp(orZero(p.At)), by, i == 0})
	}
	if view.Can, err = c.can(v); err != nil {
		return err
	}
	return c.render(v, status, "access", view)
}

// ruleWords are what a rule says, for people.
func ruleWords(words []string) []string {
	var out []string
	for i, w := range words {
		if i == 12 {
			return append(out, fmt.Sprintf("and %d more", len(words)-i))
		}
		out = append(out, clean(w))
	}
	return out
}

// policyForm is the text in a form. A browser ends its lines with CR LF, whatever they
// ended with.
func (v *visit) policyForm() ops.SetPolicy {
	text := strings.ToValidUTF8(strings.ReplaceAll(v.r.PostForm.Get("text"), "\r\n", "\n"), "\ufffd")
	c := ops.SetPolicy{Text: text}
	if m := v.r.PostForm.Get("match"); m != "" {
		if !idPattern.MatchString(m) {
			m = "none"
		}
		c.Match = []string{m}
	}
	return c
}

// checkPolicy says who would gain and lose what by a text.
func (c *Console) checkPolicy(v *visit) error {
	set := v.policyForm()
	view := accessView{Text: set.Text, Match: strings.Join(set.Match, "")}
	var r ops.PolicyCheck
	err := empty(set.Text)
	if err == nil {
		r, err = c.ops.CheckPolicy(v.ctx(), v.actor, ops.SetPolicy{Text: set.Text})
	}
	status, err := c.told(v, &view, err)
	if err != nil {
		return err
	}
	if view.Problems == nil {
		view.Check = newCheckView(set.Text, r)
	}
	if v.partial() {
		return c.fragment(v, "access", "verdict", view)
	}
	return c.accessPage(v, status, view)
}

// empty refuses a text without anything in it: it would be the starting policy.
func empty(text string) error {
	if strings.TrimSpace(text) == "" {
		return ops.Invalid(`there is nothing in it; no rules at all are written as {"rules":[]}`)
	}
	return nil
}

// savePolicy puts a text into force.
func (c *Console) savePolicy(v *visit) error {
	set := v.policyForm()
	view := accessView{Text: set.Text, Match: strings.Join(set.Match, "")}
	err := empty(set.Text)
	if err == nil {
		_, err = ops.Do(v.ctx(), c.ops, v.actor, set)
	}
	if err == nil {
		return v.redirect("/access?done=policy")
	}
	status, err := c.told(v, &view, err)
	if err != nil {
		return err
	}
	return c.accessPage(v, status, view)
}

// revertPolicy puts one of the history into force again.
func (c *Console) revertPolicy(v *visit) error {
	n, err := strconv.Atoi(v.r.PostForm.Get("number"))
	if err != nil {
		return errBadForm
	}
	_, err = ops.Do(v.ctx(), c.ops, v.actor, ops.RevertPolicy{Number: n, Match: v.policyForm().Match})
	if err == nil {
		return v.redirect("/access?done=policy")
	}
	p, former := c.ops.FormerPolicy(v.ctx(), v.actor, n)
	if former != nil {
		return former
	}
	view := accessView{Text: policyOr(p.Text), Former: formerName(n), Match: strings.Join(v.policyForm().Match, "")}
	status, err := c.told(v, &view, err)
	if err != nil {
		return err
	}
	return c.accessPage(v, status, view)
}

// told puts what is wrong into a view. Other errors come back.
func (c *Console) told(v *visit, view *accessView, err error) (status int, _ error) {
	switch e, ok := errors.AsType[*policy.Error](err); {
	case err == nil:
		return http.StatusOK, nil
	case ok:
		view.Problems = linesOf(view.Text, e.Problems)
		return http.StatusUnprocessableEntity, nil
	case errors.Is(err, ops.ErrChanged):
		view.Changed = "Somebody else has changed the policy since you opened it."
		if list, err := c.ops.PolicyHistory(v.ctx(), v.actor); err == nil && len(list) > 0 {
			view.Changed = fmt.Sprintf("%s has changed the policy since you opened it: it is number %d now.", clean(list[0].User), list[0].Number)
		}
		return http.StatusConflict, nil
	}
	if text := problemText(err); text != "" {
		view.Problems = []lineView{{Text: text}}
		return http.StatusUnprocessableEntity, nil
	}
	return 0, err
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
	view := &checkView{Tests: r.Tests, Warnings: linesOf(text, r.Warnings), None: len(r.Gains)+len(r.Losses) == 0}
	for _, s := range []struct {
		title string
		gain  bool
		list  []ops.AccessChange
		more  int
	}{{"Who gains what", true, r.Gains, r.MoreGains}, {"Who loses what", false, r.Losses, r.MoreLosses}} {
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

// canReach is the answer alone.
func (c *Console) canReach(v *visit) error {
	can, err := c.can(v)
	if err != nil {
		return err
	}
	if !v.partial() {
		return v.redirect("/access?" + v.r.URL.RawQuery + "#can")
	}
	return c.fragment(v, "access", "answer", can)
}

// can reads the question from the address.
func (c *Console) can(v *visit) (canView, error) {
	q := v.r.URL.Query()
	from, to := strings.ToValidUTF8(cut(strings.TrimSpace(q.Get("from")), 255), ""), strings.ToValidUTF8(cut(strings.TrimSpace(q.Get("to")), 300), "")
	view := canView{From: clean(from), To: clean(to)}
	if from == "" || to == "" {
		return view, nil
	}
	a, err := c.ops.CanReach(ops.Passive(v.ctx()), v.actor, ops.AccessQuery{From: from, To: to})
	switch {
	case errors.Is(err, ops.ErrNotFound):
		view.Problem = cleanLong(strings.TrimSuffix(problemWords(err), ": not found")) + ": there is none of this name."
	case problemText(err) != "":
		view.Problem = cleanLong(problemText(err))
	case err != nil:
		return view, err
	default:
		view.Asked, view.Allowed, view.Why = true, a.Allowed, cleanLong(a.Why)
		for _, n := range a.Notes {
			view.Notes = append(view.Notes, cleanLong(n))
		}
	}
	return view, nil
}

// problemWords is an error that begins a sentence.
func problemWords(err error) string {
	r := []rune(err.Error())
	return strings.ToUpper(string(r[:1])) + string(r[1:])
}
