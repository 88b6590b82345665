package console

import (
	"errors"
	"net/http"
	"regexp"
	"strings"

	"weft/coord/ops"
	"weft/overlay/cert"
)

func (c *Console) renameDevice(v *visit) error {
	id, err := v.nodeID()
	if err != nil {
		return err
	}
	name := strings.ToLower(strings.TrimSpace(v.r.PostForm.Get("name")))
	if name == "" || len(name) > 255 {
		err = ops.ErrInvalid
	} else {
		_, err = ops.Do(v.ctx(), c.ops, v.actor, ops.RenameDevice{ID: id, Name: name})
	}
	problem := problemText(err)
	switch {
	case err == nil:
		return v.redirect("/devices/" + id.String() + "?done=renamed")
	case problem == "":
		return err
	case errors.Is(err, ops.ErrInvalid):
		problem = "A name has 1 to 56 letters, digits and hyphens, and no hyphen at its ends."
	case errors.Is(err, ops.ErrTaken) && strings.HasPrefix(err.Error(), "name "): // else it says whose it is
		problem = "Another device has this name."
	}
	d, err := c.ops.Device(v.ctx(), v.actor, id.String())
	if err != nil {
		return err
	}
	return c.devicePage(v, http.StatusUnprocessableEntity, d, devicePageView{NewName: clean(name), RenameProblem: problem})
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
	id, err := v.nodeID()
	if err != nil {
		return err
	}
	d, err := c.ops.Device(v.ctx(), v.actor, id.String())
	if err != nil {
		return err
	}
	typed := strings.TrimSpace(v.r.URL.Query().Get("old"))
	problem := func(text string) error {
		return c.devicePage(v, http.StatusUnprocessableEntity, d, devicePageView{OldName: clean(cut(typed, 100)), OldProblem: text})
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
		d, err := c.ops.Device(v.ctx(), v.actor, id.String())
		if err != nil {
			return err
		}
		return c.devicePage(v, http.StatusUnprocessableEntity, d, devicePageView{OldProblem: problem})
	}
	if err != nil {
		return err
	}
	return v.redirect("/devices/" + id.String() + "?done=replaced")
}

// deleteDevice wants the name typed, so that a slip cannot cut a device off.
func (c *Console) deleteDevice(v *visit) error {
	id, err := v.nodeID()
	if err != nil {
		return err
	}
	d, err := c.ops.Device(v.ctx(), v.actor, id.String())
	if err != nil {
		return err
	}
	if typed := strings.TrimSpace(v.r.PostForm.Get("name")); !strings.EqualFold(typed, d.Name) && typed != clean(d.Name) && typed != clean(d.Title) {
		return c.devicePage(v, http.StatusUnprocessableEntity, d, devicePageView{DeleteProblem: "That is not its name. Nothing was deleted."})
	}
	if _, err := ops.Do(v.ctx(), c.ops, v.actor, ops.DeleteDevice{ID: id}); err != nil {
		return err
	}
	return v.redirect("/devices?done=deleted")
}
