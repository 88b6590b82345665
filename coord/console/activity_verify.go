package console

import (
	"net/http"
	"strconv"
	"strings"

	"weft/coord/audit"
	"weft/coord/ops"
)

// verifyView is the page on which the audit is checked.
type verifyView struct {
	Tabs     tabsView
	Keep     string
	Head     string // as typed
	Verified verifiedView
}

// verifiedView is the result of checking the audit.
type verifiedView struct {
	Done, Good bool
	Text       string
	Compared   string
	Removed    stamp
}

// verifyPage offers to check the audit.
func (c *Console) verifyPage(v *visit) error { return c.verifyForm(v, http.StatusOK, verifyView{}) }

func (c *Console) verifyForm(v *visit, status int, view verifyView) error {
	set, err := c.ops.AuditSettings(v.actor)
	if err != nil {
		return err
	}
	view.Tabs, view.Keep = actTabs("/activity/verify"), keepText(set.KeepSeconds)
	return c.render(v, status, "verify", view)
}

// verifyActivity checks the whole audit. It takes a while, so one at a time.
func (c *Console) verifyActivity(v *visit) error {
	if !c.verifying.TryLock() {
		return errBusy
	}
	defer c.verifying.Unlock()
	text := strings.TrimSpace(cut(v.r.PostForm.Get("head"), 1000))
	view := verifyView{Head: clean(text)}
	var outside *audit.Head
	if text != "" {
		h, err := audit.ParseHead(text)
		if err != nil {
			view.Verified = verifiedView{Done: true, Text: problemText(ops.Invalid("%v", err))}
			return c.verifyForm(v, http.StatusUnprocessableEntity, view)
		}
		outside = &h
	}
	report, err := c.ops.VerifyAudit(v.ctx(), v.actor, outside)
	if problem := problemText(err); problem != "" {
		view.Verified = verifiedView{Done: true, Text: problem}
		return c.verifyForm(v, http.StatusUnprocessableEntity, view)
	}
	if err != nil {
		return err
	}
	view.Head = ""
	view.Verified = c.verifiedView(report, outside)
	return c.verifyForm(v, http.StatusOK, view)
}

func (c *Console) verifiedView(r ops.AuditReport, outside *audit.Head) verifiedView {
	view := verifiedView{Done: true, Good: r.Fault == nil}
	if r.Removed != nil {
		view.Removed = c.stamp(*r.Removed)
	}
	if r.Fault != nil {
		view.Text = "Something is wrong: " + clean(r.Fault.Error()) + ". Compare with a backup, and find out who has access to the server."
		return view
	}
	switch {
	case r.Last == 0:
		view.Text = "There are no records yet."
	case r.Last < r.First:
		view.Text = "All records up to " + strconv.FormatUint(r.Last, 10) + " were removed for their age."
	default:
		view.Text = "Records " + strconv.FormatUint(r.First, 10) + " to " + strconv.FormatUint(r.Last, 10) + " are as they were written, and signed for."
	}
	switch {
	case outside != nil && r.Compared:
		view.Compared = "They match the head that was saved elsewhere."
	case outside != nil:
		view.Compared = "The head is of this network, but its records were removed for their age, so it could not be compared: save a new head."
	}
	return view
}
