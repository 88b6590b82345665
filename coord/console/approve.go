package console

import (
	"errors"
	"net/http"
	"net/netip"
	"strings"

	"weft/coord/ops"
)

// approveView is the page on which people let in devices that ask without a token: with no
// code a form for one and, for those who may see them, the devices that wait; with one the
// device that shows it.
type approveView struct {
	Problem string
	Code    string // as the device shows it; "" for none that leads anywhere
	Device  requestView
	Away    bool   // the device is at another address than the browser
	Here    string // the browser's
	Owner   string // whose it becomes
	Tags    string // as typed
	Sure    bool
	MayTag  bool
	Waiting []requestView
	Listed  bool // the list is shown
}

type requestView struct {
	ID, Hostname, OS, Version string
	From                      string
	Name                      string
	SignIn                    bool // it has joined, and is to be signed in again
	Asked, Expires            stamp
}

func (c *Console) requestView(r ops.Request) requestView {
	return requestView{
		ID: clean(r.ID), Hostname: clean(r.Hostname), OS: clean(r.OS), Version: clean(r.Version), From: clean(r.From), Name: clean(r.Name), SignIn: r.SignIn,
		Asked: c.stamp(r.At), Expires: c.stamp(r.Expires),
	}
}

func (c *Console) approvePage(v *visit) error {
	return c.approveForm(v, http.StatusOK, v.r.URL.Query().Get("code"), approveView{})
}

// approveForm draws the page for a code as somebody typed it.
func (c *Console) approveForm(v *visit, status int, typed string, view approveView) error {
	view.Owner, view.MayTag = clean(v.actor.User), v.actor.Role != ops.RoleMember
	if typed = strings.TrimSpace(cut(typed, 64)); typed != "" {
		r, err := c.ops.Request(v.ctx(), v.actor, typed)
		if err == nil && r.SignIn {
			if err := c.ops.CheckFresh(v.actor, ops.SignInDevice{}); err != nil {
				return err
			}
		}
		switch {
		case err == nil && r.State != "waiting":
			view.Problem, status = "Somebody has decided about this device already. It can ask again.", http.StatusConflict
		case err == nil:
			view.Code, view.Device = shownCode(typed), c.requestView(r)
			from, err := netip.ParseAddr(r.From)
			view.Away = err == nil && v.actor.From.IsValid() && ops.SourceOf(from) != ops.SourceOf(v.actor.From)
			view.Here = v.actor.From.String()
		default:
			if view.Problem, status = approveProblem(err); view.Problem == "" {
				return err
			}
		}
	}
	if view.Code == "" {
		list, err := c.ops.Requests(v.ctx(), v.actor)
		if err != nil && !errors.Is(err, ops.ErrForbidden) {
			return err
		}
		view.Listed = v.actor.Role != ops.RoleMember
		for _, r := range list {
			view.Waiting = append(view.Waiting, c.requestView(r))
		}
	}
	return c.render(v, status, "approve", view)
}

// approveProblem is what a person can do about an error, "" for errors that are not
// theirs.
func approveProblem(err error) (string, int) {
	switch {
	case errors.Is(err, ops.ErrNotFound):
		return "No device shows this code now. A code is good for 10 minutes: compare it with the device, or run weft up there again.", http.StatusNotFound
	case errors.Is(err, ops.ErrNotYours):
		return "This code is of a device of somebody else. Only they can sign it in.", http.StatusForbidden
	case errors.Is(err, ops.ErrTooOften):
		return "Too many wrong codes. Try again in a few minutes.", http.StatusTooManyRequests
	case errors.Is(err, ops.ErrInvalid):
		return "A code has ten letters and digits, such as BCDFG-HJKLM.", http.StatusUnprocessableEntity
	case errors.Is(err, ops.ErrTaken):
		return "Somebody has decided about this device already. It can ask again.", http.StatusConflict
	}
	return "", 0
}

// shownCode is a code that leads to a device, as that shows it.
func shownCode(typed string) string {
	bare := strings.Map(func(r rune) rune {
		if r >= '0' && r <= '9' || r >= 'A' && r <= 'Z' {
			return r
		}
		return -1
	}, strings.ToUpper(typed))
	if len(bare) != 10 {
		return ""
	}
	return bare[:5] + "-" + bare[5:]
}

func (c *Console) approve(v *visit) error {
	f := v.r.PostForm
	code := f.Get("code")
	view := approveView{Tags: clean(strings.TrimSpace(cut(f.Get("tags"), 200))), Sure: f.Get("sure") == "1"}
	if !view.Sure {
		view.Problem = "Nothing was approved. Say that you started this yourself, and that you see this code on that device."
		return c.approveForm(v, http.StatusUnprocessableEntity, code, view)
	}
	tags := strings.FieldsFunc(strings.ToLower(view.Tags), func(r rune) bool { return r == ' ' || r == ',' })
	for _, t := range tags {
		if !tagPattern.MatchString(strings.TrimPrefix(t, "tag:")) {
			view.Problem = "A tag has up to 32 letters, digits and hyphens."
			return c.approveForm(v, http.StatusUnprocessableEntity, code, view)
		}
	}
	if f.Get("again") == "1" {
		d, err := ops.Do(v.ctx(), c.ops, v.actor, ops.SignInDevice{Code: cut(code, 64)})
		if err != nil {
			return c.undecided(v, err)
		}
		return v.redirect("/devices/" + d.ID.String() + "?done=signed")
	}
	d, err := ops.Do(v.ctx(), c.ops, v.actor, ops.ApproveRequest{Code: cut(code, 64), UserID: v.actor.UserID, Tags: tags})
	if err != nil {
		return c.undecided(v, err)
	}
	return v.redirect("/devices/" + d.ID.String() + "?done=approved")
}

func (c *Console) deny(v *visit) error {
	word := v.r.PostForm.Get("code")
	if word == "" {
		word = v.r.PostForm.Get("id")
	}
	if _, err := ops.Do(v.ctx(), c.ops, v.actor, ops.DenyRequest{Word: cut(word, 64)}); err != nil {
		return c.undecided(v, err)
	}
	return v.redirect("/approve?done=denied")
}

// undecided says why nothing was decided.
func (c *Console) undecided(v *visit, err error) error {
	problem, status := approveProblem(err)
	if problem == "" {
		return err
	}
	return c.approveForm(v, status, "", approveView{Problem: problem})
}
