package console

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"weft/coord/ops"
)

// historyView is the page with the policies that were in force, the latest first.
type historyView struct {
	Tabs   tabsView
	List   []policyView
	Match  string // revision of what is in force
	Change bool   // the visitor may change it
}

type policyView struct {
	Number int
	At     stamp
	By     string
	Here   bool // in force
	Href   string
	Diff   *diffView // if it is asked for
}

// diffView is what a policy changed of the one before.
type diffView struct {
	Before string // which one that is, "" if it is not kept
	Lines  []diffLine
	Same   bool
	More   int // lines that are not shown
}

const maxDiffShown = 1000

func (c *Console) policyHistory(v *visit) error {
	now, err := c.ops.Policy(v.ctx(), v.actor)
	if err != nil {
		return err
	}
	list, err := c.ops.PolicyHistory(v.ctx(), v.actor)
	if err != nil {
		return err
	}
	view := historyView{Tabs: accessTabs(historyPath), Match: now.Revision, Change: v.mayChange()}
	asked, _ := strconv.Atoi(v.r.URL.Query().Get("number"))
	for i, p := range list {
		by := clean(p.User)
		if p.Via != "" && p.Via != string(ops.ViaConsole) {
			by += " (" + clean(p.Via) + ")"
		}
		row := policyView{Number: p.Number, At: c.stamp(orZero(p.At)), By: by, Here: i == 0, Href: fmt.Sprintf("%s?number=%d#n-%d", historyPath, p.Number, p.Number)}
		if p.Number == asked {
			if row.Diff, err = c.policyDiff(v, p.Number); err != nil {
				return err
			}
		}
		view.List = append(view.List, row)
	}
	return c.render(v, http.StatusOK, "policyhistory", view)
}

// policyDiff compares a policy of the history with the one before it.
func (c *Console) policyDiff(v *visit, number int) (*diffView, error) {
	after, err := c.ops.FormerPolicy(v.ctx(), v.actor, number)
	if err != nil {
		return nil, err
	}
	before, err := c.ops.FormerPolicy(v.ctx(), v.actor, number-1)
	if errors.Is(err, ops.ErrNotFound) {
		return &diffView{}, nil
	}
	if err != nil {
		return nil, err
	}
	view := &diffView{Before: formerName(number - 1), Lines: diffLines(policyOr(before.Text), policyOr(after.Text))}
	view.Same = len(view.Lines) == 0
	if n := len(view.Lines) - maxDiffShown; n > 0 {
		view.Lines, view.More = view.Lines[:maxDiffShown], n
	}
	for i := range view.Lines {
		view.Lines[i].Text = cleanLine(strings.TrimRight(view.Lines[i].Text, "\r"))
	}
	return view, nil
}
