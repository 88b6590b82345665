package console

import (
	"errors"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"weft/coord/ops"
	"weft/overlay/cert"
)

// The tab Settings of a device: its forms. Each has the revision of the device that it was
// drawn from, and changes nothing if there is another one by then. It comes back with what
// was typed and with the present revision, so that who insists sends it once more.

type settingsView struct {
	Match  string // the revision that is shown
	Role   string // of who may change nothing
	Undone string // why something was not undone
	// The forms, when they come back with a problem.
	NewName, RenameProblem string
	NamesProblem           string
	DeleteProblem          string
	OldName, OldProblem    string
	// The form for tags and the owner.
	MayAssign, MayHandOver bool
	NewTags, NewOwner      string
	AssignProblem          string
}

func (c *Console) deviceSettings(v *visit) error {
	d, err := v.deviceHere()
	if err != nil {
		return err
	}
	return c.settingsPage(v, http.StatusOK, d, settingsView{})
}

func (c *Console) settingsPage(v *visit, status int, d ops.Device, view settingsView) error {
	view.Match, view.Role = d.Revision, string(v.actor.Role)
	if view.NewName == "" {
		view.NewName = clean(d.Title)
	}
	if view.OldName == "" {
		view.OldName = c.namesake(v, d)
	}
	if view.AssignProblem == "" {
		view.NewTags, view.NewOwner = strings.Join(cleanAll(d.Tags), " "), clean(d.User)
	}
	view.MayAssign, view.MayHandOver = mayAssign(v.actor)
	return c.devicePage(v, status, d, devicePage{Tab: "settings", Settings: &view})
}

// refused draws the settings again after a form that changed nothing.
func (c *Console) refused(v *visit, id cert.NodeID, status int, view settingsView) error {
	d, err := c.ops.Device(v.ctx(), v.actor, id.String())
	if err != nil {
		return err
	}
	return c.settingsPage(v, status, d, view)
}

// changedMeanwhile is what a form says that was drawn before the last change.
func changedMeanwhile(d ops.Device) string {
	now := "It is called " + clean(d.Title) + " now, belongs to " + clean(d.User)
	if tags := cleanAll(d.Tags); len(tags) > 0 {
		now += " and has the tags " + strings.Join(tags, " ")
	} else {
		now += " and has no tags"
	}
	return "Somebody else has changed this device since you opened the page, or it has a new certificate. Nothing was changed by you. " + now + ". What you typed is still here: send it again if you mean it."
}

// match is the revision that a form was drawn from, nil for any: that of a page from before
// an update of the server.
func (v *visit) match() []string {
	if m := v.r.PostForm.Get("match"); m != "" {
		return []string{cut(m, 100)}
	}
	return nil
}

func (c *Console) renameDevice(v *visit) error {
	d, err := v.deviceHere()
	if err != nil {
		return err
	}
	name := strings.ToLower(strings.TrimSpace(v.r.PostForm.Get("name")))
	var after ops.Device
	if name == "" || len(name) > 255 {
		err = ops.ErrInvalid
	} else {
		after, err = c.editDevice(v, ops.EditDevice{ID: d.ID, Match: v.match(), Name: &name})
	}
	status, problem := http.StatusUnprocessableEntity, problemText(err)
	switch {
	case err == nil:
		note := "Renamed to " + clean(after.Title) + ". The new name works at once; open connections go on."
		return v.leave(settingsPath(d.ID)+"?done=renamed", note, undoOf(d, after))
	case errors.Is(err, ops.ErrChanged):
		if d, err = v.deviceHere(); err != nil {
			return err
		}
		status, problem = http.StatusConflict, changedMeanwhile(d)
	case problem == "":
		return err
	case errors.Is(err, ops.ErrInvalid):
		problem = "A name has 1 to 56 letters, digits and hyphens, and no hyphen at its ends."
	case errors.Is(err, ops.ErrTaken) && strings.HasPrefix(err.Error(), "name "): // else it says whose it is
		problem = "Another device has this name."
	}
	return c.refused(v, d.ID, status, settingsView{NewName: clean(name), RenameProblem: cleanLong(problem)})
}

// editDevice changes a device, and returns what it is then.
func (c *Console) editDevice(v *visit, e ops.EditDevice) (ops.Device, error) {
	n, err := ops.Do(v.ctx(), c.ops, v.actor, e)
	if err != nil {
		return ops.Device{}, err
	}
	return c.ops.View(n), nil
}

func settingsPath(id cert.NodeID) string { return "/devices/" + id.String() + "/settings" }

// assignDevice gives a device other tags or another owner.
func (c *Console) assignDevice(v *visit) error {
	d, err := v.deviceHere()
	if err != nil {
		return err
	}
	f := v.r.PostForm
	if !f.Has("tags") || f.Get("match") == "" {
		return errBadForm
	}
	tags := words(cut(f.Get("tags"), 2000))
	e := ops.EditDevice{ID: d.ID, Tags: &tags, Match: v.match()}
	owner := strings.TrimSpace(cut(f.Get("owner"), 255))
	if f.Has("owner") {
		e.User = &owner
	}
	var after ops.Device
	if owner == "" && f.Has("owner") {
		err = ops.Invalid("name the owner")
	} else {
		after, err = c.editDevice(v, e)
	}
	status, problem := http.StatusUnprocessableEntity, problemText(err)
	switch {
	case err == nil:
		return v.leave(settingsPath(d.ID)+"?done=assigned", "", undoOf(d, after))
	case errors.Is(err, ops.ErrChanged):
		if d, err = v.deviceHere(); err != nil {
			return err
		}
		status, problem = http.StatusConflict, changedMeanwhile(d)
	case errors.Is(err, ops.ErrForbidden):
		status, problem = http.StatusForbidden, forbiddenText(err)
	case errors.Is(err, ops.ErrNotFound):
		problem = "There is no person of this name."
	case problem == "":
		return err
	}
	return c.refused(v, d.ID, status, settingsView{NewTags: clean(strings.Join(tags, " ")), NewOwner: clean(owner), AssignProblem: cleanLong(problem)})
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

// setDeviceDNS sets the DNS settings of one device.
func (c *Console) setDeviceDNS(v *visit) error {
	id, err := v.nodeID()
	lan := v.r.PostForm.Get("lan-names")
	if !slices.Contains([]string{"default", "on", "off"}, lan) {
		return errBadForm
	}
	if err != nil {
		return err
	}
	wildcard := v.r.PostForm.Get("wildcard") == "on"
	_, err = ops.Do(v.ctx(), c.ops, v.actor, ops.EditDevice{ID: id, Match: v.match(), DeviceDNS: ops.DeviceDNS{Wildcard: &wildcard, LANNames: lan}})
	switch problem := problemText(err); {
	case err == nil:
		return v.redirect(settingsPath(id) + "?done=names")
	case errors.Is(err, ops.ErrChanged):
		d, err := v.deviceHere()
		if err != nil {
			return err
		}
		return c.settingsPage(v, http.StatusConflict, d, settingsView{NamesProblem: cleanLong(changedMeanwhile(d))})
	case problem != "":
		return c.refused(v, id, http.StatusUnprocessableEntity, settingsView{NamesProblem: cleanLong(problem)})
	}
	return err
}

// namesake is the device in whose place this one probably came: it asked for
// the same name and got it with a number.
func (c *Console) namesake(v *visit, d ops.Device) string {
	m := numbered.FindStringSubmatch(d.Name)
	if m == nil {
		return ""
	}
	if _, err := c.ops.DeviceToChange(v.ctx(), v.actor, m[1]); err != nil {
		return ""
	}
	return clean(ops.UnicodeName(m[1]))
}

var numbered = regexp.MustCompile(`^(.+)-[0-9]+$`)

type replaceView struct {
	Device, Old deviceView
}

// confirmReplace shows which device is deleted and which one gets its name.
func (c *Console) confirmReplace(v *visit) error {
	d, err := v.deviceHere()
	if err != nil {
		return err
	}
	id := d.ID
	typed := strings.TrimSpace(v.r.URL.Query().Get("old"))
	problem := func(text string) error {
		return c.settingsPage(v, http.StatusUnprocessableEntity, d, settingsView{OldName: clean(cut(typed, 100)), OldProblem: text})
	}
	if typed == "" || len(typed) > 255 {
		return problem("Name the device that goes.")
	}
	oldID, err := c.ops.DeviceToChange(v.ctx(), v.actor, strings.ToLower(typed))
	switch {
	case errors.Is(err, ops.ErrNotFound), errors.Is(err, ops.ErrInvalid):
		return problem("No device has this name.")
	case err != nil:
		return err
	case oldID == id:
		return problem("That is this device itself.")
	}
	old, err := c.ops.Device(ops.Passive(v.ctx()), v.actor, oldID.String())
	if err != nil {
		return err
	}
	return c.render(v, http.StatusOK, "replace", replaceView{Device: c.deviceView(d), Old: c.deviceView(old)})
}

// replaceDevice names the old device by its id: it deletes the device that was confirmed,
// not one that may have received the name since.
func (c *Console) replaceDevice(v *visit) error {
	id, err := v.nodeID()
	if err != nil {
		return err
	}
	typed := v.r.PostForm.Get("old")
	if typed == "" || typed == id.String() {
		return errBadForm
	}
	old, err := cert.ParseNodeID(typed)
	if err != nil {
		return ops.ErrNotFound
	}
	_, err = ops.Do(v.ctx(), c.ops, v.actor, ops.ReplaceDevice{Old: old, By: id})
	if problem := problemText(err); problem != "" {
		return c.refused(v, id, http.StatusUnprocessableEntity, settingsView{OldProblem: cleanLong(problem)})
	}
	if err != nil {
		return err
	}
	return v.redirect("/devices/" + id.String() + "?done=replaced")
}

// deleteDevice wants the name typed, so that a slip cannot cut a device off.
func (c *Console) deleteDevice(v *visit) error {
	d, err := v.deviceHere()
	if err != nil {
		return err
	}
	if typed := strings.TrimSpace(v.r.PostForm.Get("name")); !strings.EqualFold(typed, d.Name) && typed != clean(d.Name) && typed != clean(d.Title) {
		return c.settingsPage(v, http.StatusUnprocessableEntity, d, settingsView{DeleteProblem: "That is not its name. Nothing was deleted."})
	}
	if _, err := ops.Do(v.ctx(), c.ops, v.actor, ops.DeleteDevice{ID: d.ID}); err != nil {
		return err
	}
	return v.leave("/devices?done=deleted", "Deleted "+clean(d.Title)+". Its certificates are revoked.", nil)
}
