package console

import (
	"encoding/hex"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"weft/coord/ops"
)

// After a change the next page says what was done, in a note, and offers for a moment to
// undo it. The note travels in the address of that page, sealed for the session: nobody
// else can have a page say or offer something, and nothing has to be kept here. Undoing is
// a change like every other one, made only if nobody has changed the device since.

const (
	// undoShown is how long a page offers to undo something, and undoTaken how long that
	// is accepted: whoever presses the button in the last second may have a slow line.
	undoShown = 10 * time.Second
	undoTaken = time.Minute
	// maxNote is how long a sealed note may be in an address, in bytes.
	maxNote = 4000
)

// note is what a page says was done.
type note struct {
	Text string // "" for that of the address
	Undo *undoing
	Made time.Time
}

// undoing is a change of a device back to what it was.
type undoing struct {
	Device string // its id
	Match  string // its revision after what is undone
	Name   *string
	Tags   *[]string
	User   *string
}

// undoOf is what makes before of after again, nil if they are the same.
func undoOf(before, after ops.Device) *undoing {
	u := &undoing{Device: after.ID.String(), Match: after.Revision}
	if before.Name != after.Name {
		u.Name = &before.Name
	}
	if !slices.Equal(before.Tags, after.Tags) {
		u.Tags = &before.Tags
	}
	if before.User != after.User {
		u.User = &before.User
	}
	if u.Name == nil && u.Tags == nil && u.User == nil {
		return nil
	}
	return u
}

// leave answers a form with another page, whose address has a query, and a note on it.
func (v *visit) leave(to, text string, u *undoing) error {
	now := v.now()
	sealed, err := v.box.put(v.notePurpose(), now.Add(undoTaken), note{text, u, now})
	if err != nil {
		return err
	}
	if len(sealed) <= maxNote {
		to += "&note=" + sealed
	}
	return v.redirect(to)
}

// notePurpose is what notes for this session are sealed for.
func (v *visit) notePurpose() string { return "note " + hex.EncodeToString(v.session.Hash[:]) }

// noteHere is the note in the address of the page, if there is one.
func (v *visit) noteHere() (text string, u *undo) {
	sealed := v.r.URL.Query().Get("note")
	var n note
	if sealed == "" || !v.box.take(v.notePurpose(), sealed, v.now(), &n) {
		return "", nil
	}
	if n.Undo != nil && v.now().Sub(n.Made) < undoShown {
		u = &undo{"/devices/" + n.Undo.Device + "/undo", []field{{"note", sealed}}}
	}
	return n.Text, u
}

// undoDevice undoes what a note says was done.
func (c *Console) undoDevice(v *visit) error {
	d, err := v.deviceHere()
	if err != nil {
		return err
	}
	refuse := func(status int, why string) error {
		return c.refused(v, d.ID, status, settingsView{Undone: cleanLong(why)})
	}
	var n note
	if !c.box.take(v.notePurpose(), v.r.PostForm.Get("note"), c.now(), &n) || n.Undo == nil || n.Undo.Device != d.ID.String() {
		return refuse(http.StatusUnprocessableEntity, "It is too late to undo that. Nothing was changed; change it back below.")
	}
	u := n.Undo
	after, err := c.editDevice(v, ops.EditDevice{ID: d.ID, Match: []string{u.Match}, Name: u.Name, Tags: u.Tags, User: u.User})
	switch problem := problemText(err); {
	case err == nil:
		return v.leave(settingsPath(d.ID)+"?done=undone", undoneText(u, after), nil)
	case errors.Is(err, ops.ErrChanged):
		return refuse(http.StatusConflict, "Not undone: somebody has changed this device since, or it has a new certificate. It stays as it is shown here.")
	case errors.Is(err, ops.ErrForbidden):
		return refuse(http.StatusForbidden, "Not undone: "+forbiddenText(err))
	case problem != "":
		return refuse(http.StatusUnprocessableEntity, "Not undone: "+problem)
	}
	return err
}

func undoneText(u *undoing, d ops.Device) string {
	var is []string
	if u.Name != nil {
		is = append(is, "it is called "+clean(d.Title)+" again")
	}
	if u.Tags != nil {
		if tags := cleanAll(d.Tags); len(tags) > 0 {
			is = append(is, "its tags are "+strings.Join(tags, " ")+" again")
		} else {
			is = append(is, "it has no tags again")
		}
	}
	if u.User != nil {
		is = append(is, "it belongs to "+clean(d.User)+" again")
	}
	return "Undone: " + strings.Join(is, ", ") + "."
}
