package console

import (
	"net/http"
	"strings"

	"weft/coord/ops"
)

// groupsView is the page of groups.
type groupsView struct {
	List          []groupView
	Change        bool
	Name, Problem string
}

type groupView struct {
	Name    string
	By      []string // providers; none for one that was made here
	Members []memberView
	More    int
}

// ByText is who says who is in it.
func (g groupView) ByText() string {
	if len(g.By) == 0 {
		return "Admins here"
	}
	return strings.Join(g.By, ", ")
}

type memberView struct{ Name, Path string }

const maxMembersShown = 50

func (c *Console) groups(v *visit) error { return c.groupsPage(v, http.StatusOK, groupsView{}) }

func (c *Console) groupsPage(v *visit, status int, view groupsView) error {
	list, err := c.ops.Groups(v.ctx(), v.actor)
	if err != nil {
		return err
	}
	view.Change = v.actor.Invites()
	for _, g := range list {
		gv := groupView{Name: clean(g.Name), By: cleanAll(g.Sources)}
		for i, m := range g.Members {
			if i == maxMembersShown {
				gv.More = len(g.Members) - i
				break
			}
			gv.Members = append(gv.Members, memberView{clean(m), personPath(m)})
		}
		view.List = append(view.List, gv)
	}
	return c.render(v, status, "groups", view)
}

func (c *Console) createGroup(v *visit) error {
	name := strings.TrimSpace(formName(v))
	_, err := ops.Do(v.ctx(), c.ops, v.actor, ops.CreateGroup{Name: name})
	return c.changedGroup(v, err, groupsView{Name: clean(name)})
}

func (c *Console) deleteGroup(v *visit) error {
	_, err := ops.Do(v.ctx(), c.ops, v.actor, ops.DeleteGroup{Name: formName(v)})
	return c.changedGroup(v, err, groupsView{})
}

func (c *Console) changedGroup(v *visit, err error, view groupsView) error {
	switch problem := problemText(err); {
	case err == nil:
		return v.redirect("/people/groups?done=decided")
	case problem == "":
		return err
	default:
		view.Problem = problem
	}
	return c.groupsPage(v, http.StatusUnprocessableEntity, view)
}
