package console

import (
	"errors"
	"strings"

	"weft/coord/ops"
)

// canView is the question, and its answer.
type canView struct {
	From, To     string
	Asked        bool
	Allowed      bool
	Rule, Line   int    // that decides, from 1; 0 for none
	Href         string // that rule in the table
	Why, Problem string
	Notes        []string
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
		if view.Rule, view.Line = a.Rule, a.Line; a.Rule > 0 {
			view.Href = rulePath(a.Rule)
		}
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
