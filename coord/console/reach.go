package console

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
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

// assignDevice gives a device other tags or another owner, if nothing has changed since
// the form was drawn.
func (c *Console) assignDevice(v *visit) error {
	id, err := v.nodeID()
	if err != nil {
		return err
	}
	f := v.r.PostForm
	if !f.Has("tags") || f.Get("match") == "" {
		return errBadForm
	}
	tags := strings.FieldsFunc(cut(f.Get("tags"), 2000), func(r rune) bool { return r == ' ' || r == ',' })
	e := ops.EditDevice{ID: id, Tags: &tags, Match: []string{f.Get("match")}}
	owner := strings.TrimSpace(cut(f.Get("owner"), 255))
	if f.Has("owner") {
		e.User = &owner
	}
	if owner == "" && f.Has("owner") {
		err = ops.Invalid("name the owner")
	} else {
		_, err = ops.Do(v.ctx(), c.ops, v.actor, e)
	}
	if err == nil {
		return v.redirect("/devices/" + id.String() + "?done=assigned")
	}
	d, missing := c.ops.Device(v.ctx(), v.actor, id.String())
	if missing != nil {
		return missing
	}
	status, problem := http.StatusUnprocessableEntity, problemText(err)
	switch {
	case errors.Is(err, ops.ErrChanged):
		status, problem = http.StatusConflict, "Somebody else has changed this device since you opened the page, or it has a new certificate. Look at it again, then repeat."
	case errors.Is(err, ops.ErrForbidden):
		status, problem = http.StatusForbidden, forbiddenText(err)
	case errors.Is(err, ops.ErrNotFound):
		problem = "There is no person of this name."
	case problem == "":
		return err
	}
	return c.devicePage(v, status, d, devicePageView{NewTags: clean(strings.Join(tags, " ")), NewOwner: clean(owner), AssignProblem: cleanLong(problem)})
}

// forbiddenText is why something is not allowed.
func forbiddenText(err error) string {
	text := strings.TrimSuffix(err.Error(), ": "+ops.ErrForbidden.Error())
	if _, why, ok := strings.Cut(text, ": "); ok { // behind the name of the operation
		text = why
	}
	return cleanLong(strings.ToUpper(text[:1]) + text[1:] + ".")
}

// mayAssign reports whether to offer the form, and whether it has an owner in it.
func mayAssign(a ops.Actor) (tags, owner bool) {
	owner = slices.Contains([]ops.Role{ops.RoleOwner, ops.RoleAdmin, ops.RoleOperator}, a.Role)
	return owner || a.Role == ops.RoleMember, owner
}
