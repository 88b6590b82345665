package console

import (
	"net/http"
	"strings"

	"weft/coord/ops"
	"weft/coord/store"
)

// hookView is a webhook as the pages show it.
type hookView struct {
	ID, Path, URL    string
	Note             string
	Events, Tags     []string
	State            string // as ops.Webhook.State says it
	Enabled          bool
	Created          stamp
	Delivered        string
	Last             stamp
	Failing, Paused  stamp
	Next             stamp
	Error            string
	Attempts, Missed string // "" for none
	MissedAt         stamp
	OldUntil         stamp
}

type webhooksView struct {
	Change bool
	List   []hookView
}

func (c *Console) hookView(w ops.Webhook) hookView {
	h := hookView{
		ID: clean(w.ID), Path: "/settings/webhooks/" + w.ID, URL: cleanLong(w.URL), Note: clean(w.Note), Events: cleanAll(w.Events), Tags: cleanAll(w.Tags), State: w.State, Enabled: w.Enabled,
		Created: c.stamp(w.Created), Delivered: plural(int(w.Delivered), "event"), Last: c.stamp(orZero(w.Last)),
		Failing: c.stamp(orZero(w.Failing)), Paused: c.stamp(orZero(w.Paused)), Next: c.stamp(orZero(w.Next)), Error: cleanLong(w.LastError),
		MissedAt: c.stamp(orZero(w.MissedAt)), OldUntil: c.stamp(orZero(w.OldUntil)),
	}
	if w.Attempts > 0 {
		h.Attempts = plural(w.Attempts, "attempt")
	}
	if w.Missed > 0 {
		h.Missed = plural(int(w.Missed), "event")
	}
	return h
}

func (c *Console) webhooks(v *visit) error {
	list, err := c.ops.Webhooks(v.ctx(), v.actor)
	if err != nil {
		return hide(err)
	}
	view := webhooksView{Change: v.actor.May("webhook.create")}
	for _, w := range list {
		view.List = append(view.List, c.hookView(w))
	}
	return c.render(v, http.StatusOK, "webhooks", view)
}

// hookForm is what a webhook can be given.
type hookForm struct {
	URL, Events, Tags, Allow, Note string
	MayAllow                       bool
	Problem                        string
}

type newHookView struct {
	Form hookForm
}

func (c *Console) newWebhook(v *visit) error {
	return c.newWebhookPage(v, http.StatusOK, hookForm{Events: "*"})
}

func (c *Console) newWebhookPage(v *visit, status int, f hookForm) error {
	if err := only(v.actor, "webhook.create"); err != nil {
		return err
	}
	f.MayAllow = v.actor.May("webhook.allow")
	return c.render(v, status, "newwebhook", newHookView{f})
}

// hookTyped reads the form, and what it shows again.
func hookTyped(v *visit) (f, shown hookForm) {
	p := v.r.PostForm
	f = hookForm{URL: strings.TrimSpace(cut(p.Get("url"), 4000)), Events: cut(p.Get("events"), 4000), Tags: cut(p.Get("tags"), 2000), Allow: cut(p.Get("allow"), 2000), Note: strings.TrimSpace(cut(p.Get("note"), 200))}
	shown = f
	for _, s := range []*string{&shown.URL, &shown.Events, &shown.Tags, &shown.Allow, &shown.Note} {
		*s = asTyped([]string{strings.ToValidUTF8(*s, "")})
	}
	return f, shown
}

// hookProblem is changeProblem with what only owners may.
func hookProblem(err error, f hookForm) string {
	if f.Allow != "" && isForbidden(err) {
		return "Only an owner may allow addresses that are otherwise not dialled."
	}
	return cleanLong(changeProblem(err))
}

// createWebhook makes a webhook and leads to its page, which shows the secret to this
// session.
func (c *Console) createWebhook(v *visit) error {
	f, shown := hookTyped(v)
	made, err := ops.Do(v.ctx(), c.ops, v.actor, ops.CreateWebhook{URL: f.URL, Events: words(f.Events), Tags: words(f.Tags), Allow: words(f.Allow), Note: f.Note})
	if problem := hookProblem(err, f); problem != "" {
		shown.Problem = problem
		return c.newWebhookPage(v, http.StatusUnprocessableEntity, shown)
	}
	if err != nil {
		return err
	}
	c.holdToken("webhook "+made.ID, v.session.Hash, made.Secret)
	return v.redirect("/settings/webhooks/" + made.ID + "?done=webhook")
}

// attemptView is one attempt to send an event.
type attemptView struct {
	Op, Event string
	At        stamp
	Took      string
	Result    string
	Good      bool
}

func (c *Console) attemptView(d store.Delivered) attemptView {
	a := attemptView{Op: clean(d.Op), Event: clean(d.Event), At: c.stamp(d.At), Took: thousands(int(d.TookMS)) + " ms", Result: cleanLong(d.Error), Good: d.Error == ""}
	if a.Good {
		a.Result = "Taken"
		if d.Status != 0 {
			a.Result += ", " + thousands(d.Status)
		}
	}
	return a
}

// hookPage is the page of one webhook.
type hookPage struct {
	Hook   hookView
	Recent []attemptView
	Change bool
	Form   hookForm
	Match  string
	Secret string       // for the session that made it
	Test   *attemptView // that was asked for just now
	Danger string       // with deleting it
	Name   string       // that is typed to delete it
}

func (c *Console) webhook(v *visit) error { return c.webhookPage(v, http.StatusOK, hookPage{}) }

func (c *Console) webhookPage(v *visit, status int, page hookPage) error {
	id, err := v.pathID()
	if err != nil {
		return err
	}
	w, err := c.ops.Webhook(v.ctx(), v.actor, id)
	if err != nil {
		return hide(err)
	}
	page.Change = v.actor.May("webhook.edit")
	page.Hook = c.hookView(w)
	for _, d := range w.Recent {
		page.Recent = append(page.Recent, c.attemptView(d))
	}
	if page.Form.Problem == "" {
		allow := []string{}
		for _, p := range w.Allow {
			allow = append(allow, p.String())
		}
		page.Form = hookForm{URL: asTyped([]string{w.URL}), Events: asTyped([]string{strings.Join(w.Events, " ")}), Tags: asTyped([]string{strings.Join(w.Tags, " ")}), Allow: strings.Join(allow, " "), Note: asTyped([]string{w.Note})}
		page.Match = w.Revision
	}
	page.Form.MayAllow = v.actor.May("webhook.allow")
	page.Name = page.Hook.ID
	page.Secret = c.heldToken("webhook "+id, v.session.Hash)
	return c.render(v, status, "webhook", page)
}

// editHook changes a webhook and leads back to its page.
func (c *Console) editHook(v *visit, e ops.EditWebhook, f, shown hookForm) error {
	id, err := v.pathID()
	if err != nil {
		return err
	}
	e.ID = id
	_, err = ops.Do(v.ctx(), c.ops, v.actor, e)
	if problem := hookProblem(err, f); problem != "" {
		shown.Problem = problem
		return c.webhookPage(v, http.StatusUnprocessableEntity, hookPage{Form: shown, Match: clean(v.r.PostForm.Get("match"))})
	}
	if err != nil {
		return err
	}
	return v.redirect("/settings/webhooks/" + id + "?done=decided")
}

func (c *Console) editWebhook(v *visit) error {
	f, shown := hookTyped(v)
	e := ops.EditWebhook{Match: []string{v.r.PostForm.Get("match")}, URL: &f.URL, Note: &f.Note}
	events, tags := words(f.Events), append([]string{}, words(f.Tags)...)
	e.Events, e.Tags = &events, &tags
	if v.actor.May("webhook.allow") { // the field is there for who may
		allow := words(f.Allow)
		e.Allow = &allow
	}
	return c.editHook(v, e, f, shown)
}

func (c *Console) enableWebhook(v *visit) error {
	return c.editHook(v, ops.EditWebhook{Enabled: new(true)}, hookForm{}, hookForm{})
}

func (c *Console) disableWebhook(v *visit) error {
	return c.editHook(v, ops.EditWebhook{Enabled: new(false)}, hookForm{}, hookForm{})
}

// testWebhook sends a test and shows on the page what came of it.
func (c *Console) testWebhook(v *visit) error {
	id, err := v.pathID()
	if err != nil {
		return err
	}
	select {
	case c.testing <- struct{}{}:
		defer func() { <-c.testing }()
	default:
		return errBusy
	}
	d, err := c.ops.TestWebhook(v.ctx(), v.actor, id)
	if err != nil {
		return err
	}
	a := c.attemptView(d)
	return c.webhookPage(v, http.StatusOK, hookPage{Test: &a})
}

// rotateWebhook gives a webhook a new secret, which its page shows to this session.
func (c *Console) rotateWebhook(v *visit) error {
	id, err := v.pathID()
	if err != nil {
		return err
	}
	made, err := ops.Do(v.ctx(), c.ops, v.actor, ops.RotateWebhook{ID: id, Keep: ops.DefaultKeepSecret})
	if err != nil {
		return err
	}
	c.holdToken("webhook "+made.ID, v.session.Hash, made.Secret)
	return v.redirect("/settings/webhooks/" + made.ID + "?done=rotated")
}

// deleteWebhook wants the id typed.
func (c *Console) deleteWebhook(v *visit) error {
	id, err := v.pathID()
	if err != nil {
		return err
	}
	if strings.TrimSpace(v.r.PostForm.Get("typed")) != id {
		if !v.actor.May("webhook.delete") {
			return ops.ErrForbidden
		}
		return c.webhookPage(v, http.StatusUnprocessableEntity, hookPage{Danger: "That is not the id. Nothing was deleted."})
	}
	if _, err := ops.Do(v.ctx(), c.ops, v.actor, ops.DeleteWebhook{ID: id}); err != nil {
		return err
	}
	c.dropToken("webhook " + id)
	return v.redirect("/settings/webhooks?done=nowebhook")
}
