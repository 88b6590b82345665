package console

import (
	"errors"
	"fmt"
	"maps"
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
	More     int // rules that are not shown
	Tags     []tagView
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

type policyView struct {
	Number int
	At     stamp
	By     string
	Here   bool // in force
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
		for _, tag := range slices.Sorted(maps.Keys(p.TagOwners)) {
			if len(view.Tags) < maxRulesShown {
				view.Tags = append(view.Tags, tagView{Tag: clean(tag), Who: ruleWords(p.TagOwners[tag])})
			}
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

// checkPolicy shows which access a policy would add and take away.
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
		return ops.Invalid(`it is empty; to allow nothing, write {"rules":[]}`)
	}
	return nil
}

// savePolicy puts a policy into force.
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
	view := accessView{Text: policyOr(p.Text), Former: formerName(n), Match: strings.Join(v.policyForm().Match, "")}
	status, err := c.told(v, &view, err)
	if err != nil {
		return err
	}
	return c.accessPage(v, status, view)
}

// told puts the mistakes of a policy into a view. It returns other errors.
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
