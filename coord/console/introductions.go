package console

import (
	"errors"
	"net/http"
	"net/url"
	"strings"

	"weft/coord/ops"
	"weft/coord/store"
)

// claimView is a store.Introduction with every string fit to show.
type claimView struct {
	Device, DeviceID string
	Peer, User       string
	Several          bool
	Inbound          bool
	Count            int64
	First, Last      stamp
	Paths, Suites    string
	Doubts           []string
}

// claimDoubts are the reasons to doubt a claim, for people.
var claimDoubts = map[string]string{
	ops.DoubtUnknown: "no such device ever was", ops.DoubtDeleted: "it was deleted", ops.DoubtUnreachable: "policy lets neither reach the other",
	ops.DoubtName: "it has another name or owner", ops.DoubtTime: "it was not possible at that time", ops.DoubtFull: "more reports in a day than are stored",
}

// suiteNames are the words of store.Suites, for people.
var suiteNames = map[string]string{"aes": "AES", "wireguard": "WireGuard"}

const claimsPerPage = 50

type claimsView struct {
	List    []claimView
	Tags    []string // devices with these tags report
	Device  string
	Problem string
	Next    string
	First   string
	Tabs    tabsView
	Owner   bool
	Keep    string
}

func (c *Console) introductions(v *visit) error {
	view := claimsView{Tabs: actTabs("/activity/introductions"), Owner: v.actor.Role == ops.RoleOwner}
	set, err := c.ops.AuditSettings(v.actor)
	if err != nil {
		return err
	}
	view.Tags, view.Keep = cleanAll(set.Introductions), keepText(set.KeepSeconds)
	q := ops.IntroductionQuery{Device: strings.ToValidUTF8(cut(strings.TrimSpace(v.r.URL.Query().Get("device")), 255), ""), After: v.r.URL.Query().Get("after"), Limit: claimsPerPage}
	view.Device = clean(q.Device)
	list, err := c.ops.Introductions(v.ctx(), v.actor, q)
	if problem := problemText(err); problem != "" {
		view.Problem = problem
	} else if errors.Is(err, ops.ErrNotFound) {
		view.Problem = "There is no such device. Find a deleted one by its id."
	} else if err != nil {
		return err
	}
	for _, i := range list.Introductions {
		view.List = append(view.List, c.claimView(i))
	}
	again := url.Values{}
	if q.Device != "" {
		again.Set("device", q.Device)
	}
	if q.After != "" {
		view.First = actPath("/activity/introductions", again)
	}
	if list.Next != "" {
		again.Set("after", list.Next)
		view.Next = actPath("/activity/introductions", again)
	}
	return c.render(v, http.StatusOK, "introductions", view)
}

func (c *Console) claimView(i store.Introduction) claimView {
	view := claimView{
		Device: clean(i.DeviceName), DeviceID: i.Device.String(), Peer: clean(i.Name), User: clean(i.User), Several: i.IsSeveral(),
		Inbound: i.Inbound, Count: i.Count, First: c.stamp(i.First), Last: c.stamp(i.Last), Paths: strings.Join(strings.Fields(clean(i.Paths)), ", "),
	}
	for _, s := range strings.Fields(i.Suites) {
		if view.Suites != "" {
			view.Suites += ", "
		}
		view.Suites += suiteNames[s]
	}
	if view.Device == "" {
		view.Device = view.DeviceID
	}
	if view.Peer == "" {
		view.Peer = i.Peer.String()
	}
	for _, d := range strings.Fields(i.Doubts) {
		if text := claimDoubts[d]; text != "" {
			view.Doubts = append(view.Doubts, text)
		}
	}
	return view
}

// reportIntroductions sets whether the devices with a tag report introductions.
func (c *Console) reportIntroductions(v *visit) error {
	tag, edit := strings.TrimSpace(v.r.PostForm.Get("tag")), ops.EditAudit{}
	switch v.r.PostForm.Get("report") {
	case "on":
		edit.Report = []string{tag}
	case "off":
		edit.NoReport = []string{tag}
	default:
		return errBadForm
	}
	_, err := ops.Do(v.ctx(), c.ops, v.actor, edit)
	if problem := problemText(err); problem != "" {
		return &pageError{http.StatusUnprocessableEntity, "Not saved", problem}
	}
	if err != nil {
		return err
	}
	return v.redirect("/activity/introductions?done=reports")
}
