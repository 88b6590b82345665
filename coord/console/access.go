package console

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"weft/coord/ops"
	"weft/coord/policy"
)

// maxPolicyForm bounds a form with a policy, which is longer there than by itself.
const maxPolicyForm = 4 * policy.MaxText

// The pages of the policy are tabs of one section: the rules (access_rules.go), the text, its
// tests, its tags and groups, and its history (access_history.go). All show the one document
// that is in force.
const (
	rulesPath   = "/access"
	policyPath  = "/access/policy"
	testsPath   = "/access/tests"
	tagsPath    = "/access/tags"
	historyPath = "/access/history"
)

func accessTabs(here string) tabsView {
	var tabs []tab
	for _, t := range []tab{{Text: "Rules", Href: rulesPath}, {Text: "Text", Href: policyPath}, {Text: "Tests", Href: testsPath}, {Text: "Tags and groups", Href: tagsPath}, {Text: "History", Href: historyPath}} {
		t.Here = t.Href == here
		tabs = append(tabs, t)
	}
	return tabsView{Name: "Access", List: tabs}
}

// policyEditor is the page with the text. Texts of the policy are as they were typed:
// templates escape them, and what package policy takes has no character that is not seen.
type policyEditor struct {
	Tabs        tabsView
	Starting    bool // nothing was put into force yet
	Change      bool // the visitor may change it
	Text, Match string
	Former      string // which one of the history the text is, "" for none
	Rows        int
	Line        int    // that the address asks for, from 1; 0 for none
	Quoted      string // that line
	Rule        int    // that begins in it, from 1; 0 for none
	RuleHref    string // that rule in the table
	Problems    []lineView
	Changed     string // somebody else has changed it meanwhile: what to say
	Check       *checkView
}

// mayChange reports whether the visitor may put a policy into force.
func (v *visit) mayChange() bool {
	return v.actor.Role == ops.RoleOwner || v.actor.Role == ops.RoleAdmin
}

// policyText is the page with the text, or with one of the history in its place.
func (c *Console) policyText(v *visit) error {
	q := v.r.URL.Query()
	view := policyEditor{}
	if n, err := strconv.Atoi(q.Get("number")); err == nil && n >= 0 {
		p, err := c.ops.FormerPolicy(v.ctx(), v.actor, n)
		if err != nil {
			return err
		}
		view.Text, view.Former = policyOr(p.Text), formerName(n)
	}
	view.Line, _ = strconv.Atoi(q.Get("line"))
	return c.policyEditor(v, http.StatusOK, view)
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

// policyEditor draws the page; view has the form that came back, if any.
func (c *Console) policyEditor(v *visit, status int, view policyEditor) error {
	now, err := c.ops.Policy(v.ctx(), v.actor)
	if err != nil {
		return err
	}
	view.Tabs, view.Starting, view.Change = accessTabs(policyPath), now.Text == "", v.mayChange()
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
	lines := strings.Split(view.Text, "\n")
	view.Rows = min(max(len(lines)+1, 16), 40)
	if view.Line > 0 && view.Line <= len(lines) {
		view.Quoted = cleanLine(strings.TrimSpace(lines[view.Line-1]))
		if p, err := policy.Stored(policyOr(now.Text)); err == nil && view.Text == policyOr(now.Text) {
			for i, r := range p.Rules {
				if r.Line == view.Line {
					view.Rule, view.RuleHref = i+1, rulePath(i+1)
				}
			}
		}
	} else {
		view.Line = 0
	}
	return c.render(v, status, "policy", view)
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

// checkPolicy shows which access a policy would add and take away.
func (c *Console) checkPolicy(v *visit) error {
	set := v.policyForm()
	view := policyEditor{Text: set.Text, Match: strings.Join(set.Match, "")}
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
		return c.fragment(v, "policy", "verdict", view)
	}
	return c.policyEditor(v, status, view)
}

// empty refuses a text without anything in it: it would be the starting policy.
func empty(text string) error {
	if strings.TrimSpace(text) == "" {
		return ops.Invalid(`it is empty; to allow nothing, write {"rules":[]}`)
	}
	return nil
}

// savePolicy puts a policy into force.
func (c *Console) savePolicy(v *visit) error {
	set := v.policyForm()
	view := policyEditor{Text: set.Text, Match: strings.Join(set.Match, "")}
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
	return c.policyEditor(v, status, view)
}

// revertPolicy puts a policy of the history into force again.
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
	view := policyEditor{Text: policyOr(p.Text), Former: formerName(n), Match: strings.Join(v.policyForm().Match, "")}
	status, err := c.told(v, &view, err)
	if err != nil {
		return err
	}
	return c.policyEditor(v, status, view)
}

// told puts the mistakes of a policy into a view. It returns other errors.
func (c *Console) told(v *visit, view *policyEditor, err error) (status int, _ error) {
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
