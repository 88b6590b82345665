package console

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"weft/coord/ops"
)

// reachView is a part of all that somebody reaches, or of all who reach a device.
type reachView struct {
	Groups  []reachGroup
	Next    string // address of the next part, "" at the end
	Partial bool   // there may be more, which the visitor may not see
}

type reachGroup struct {
	Who   string
	Tags  []string
	Ports string
	Rules string
}

const reachPerPage = 20

// reach asks; the part that is shown is named in the address of the page at path.
func (c *Console) reach(v *visit, q ops.ReachQuery, path string) (reachView, error) {
	q.Limit = reachPerPage
	if n, err := strconv.Atoi(v.r.URL.Query().Get("reach")); err == nil && n > 0 {
		q.Cursor = strconv.Itoa(n)
	}
	r, err := c.ops.Reach(v.ctx(), v.actor, q)
	if err != nil {
		return reachView{}, err
	}
	view := reachView{Partial: r.Partial}
	for _, g := range r.Groups {
		change := newChangeView(ops.AccessChange{From: g.Party, Ports: g.Ports})
		group := reachGroup{Who: change.From, Tags: cleanAll(g.Tags), Ports: change.Ports}
		var rules []string
		for _, by := range g.By {
			rules = append(rules, fmt.Sprint(by.Rule))
		}
		if group.Rules = "rule " + rules[0]; len(rules) > 1 {
			group.Rules = "rules " + strings.Join(rules, ", ")
		}
		view.Groups = append(view.Groups, group)
	}
	if r.Next != "" {
		view.Next = path + "?reach=" + url.QueryEscape(r.Next) + "#reach"
	}
	return view, nil
}

// mineView is what a member finds beside the own devices.
type mineView struct {
	Reach    reachView
	Keys     []keyView // that can be used
	Sessions int
}

// maxMine is how many of the own keys are shown there.
const maxMine = 20

func (c *Console) mine(v *visit) (*mineView, error) {
	view := &mineView{}
	var err error
	if view.Reach, err = c.reach(v, ops.ReachQuery{}, "/devices"); err != nil {
		return nil, err
	}
	keys, err := c.ops.Keys(v.ctx(), v.actor, maxMine)
	if err != nil {
		return nil, err
	}
	for _, k := range keys {
		if kv := c.keyView(k); kv.Open {
			view.Keys = append(view.Keys, kv)
		}
	}
	sessions, err := c.ops.Sessions(v.ctx(), v.actor)
	for _, s := range sessions {
		if c.live(s, c.now()) {
			view.Sessions++
		}
	}
	return view, err
}
