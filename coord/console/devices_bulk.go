package console

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"weft/coord/ops"
	"weft/overlay/cert"
)

// bulkView is a page between the list and what is done to many of its devices, or after it.
type bulkView struct {
	Title   string
	Do      string // what is asked for: "delete"
	IDs     []string
	Names   []string // of the first of them
	More    int      // that are not in Names
	MustBe  string   // what has to be typed
	What    string   // that is: "the name", "the number"
	Problem string

	Done   string // what was done
	Failed []bulkFailure
	Back   string
	Retry  bool // Failed can be tried again: the form has their ids
}

type bulkFailure struct{ Name, Path, Why string }

// maxBulkForm bounds the body of a form with the ids of ops.MaxDeviceChange devices, in
// bytes.
const maxBulkForm = 64 << 10

// namesShown is how many names a confirmation lists.
const namesShown = 20

// changeDevices does one thing to the devices that were chosen.
func (c *Console) changeDevices(v *visit) error {
	f := v.r.PostForm
	back := listPath(f.Get("back"))
	what := f.Get("do")
	ids, err := c.chosen(v, f, back)
	if problem := problemText(err); problem != "" {
		return c.render(v, http.StatusUnprocessableEntity, "bulk", bulkView{Title: "Nothing was changed", Problem: problem, Back: back})
	}
	if err != nil {
		return err
	}
	var change ops.DeviceChange
	tag, owner := strings.TrimSpace(cut(f.Get("tag"), 200)), strings.TrimSpace(cut(f.Get("owner"), 200))
	missing := ""
	switch what {
	case "add-tag":
		if change.AddTag = strings.TrimPrefix(tag, "#"); tag == "" {
			missing = "Say which tag they get."
		}
	case "remove-tag":
		if change.RemoveTag = strings.TrimPrefix(tag, "#"); tag == "" {
			missing = "Say which tag they lose."
		}
	case "owner":
		if change.User = owner; owner == "" {
			missing = "Say who their owner is."
		}
	case "delete", "delete-now":
		change.Delete = true
	default:
		return errBadForm
	}
	if missing == "" && len(ids) == 0 {
		missing = "No device is chosen: tick some of the list first."
	}
	if missing != "" {
		return c.render(v, http.StatusUnprocessableEntity, "bulk", bulkView{Title: "Nothing was changed", Problem: missing, Back: back})
	}
	if change.Delete {
		view, err := c.confirmDelete(v, ids, back)
		if err != nil || len(view.IDs) == 0 {
			return err
		}
		typed := strings.TrimSpace(f.Get("typed"))
		switch {
		case what == "delete":
			return c.render(v, http.StatusOK, "bulk", view)
		case !strings.EqualFold(typed, view.MustBe):
			view.Problem = "That is not " + view.What + ". Nothing was deleted."
			return c.render(v, http.StatusUnprocessableEntity, "bulk", view)
		}
	}
	outcomes, err := c.ops.ChangeDevices(v.ctx(), v.actor, ids, change)
	if problem := problemText(err); problem != "" {
		return c.render(v, http.StatusUnprocessableEntity, "bulk", bulkView{Title: "Nothing was changed", Problem: problem, Back: back})
	}
	if err != nil {
		return err
	}
	view := bulkView{Back: back}
	changed := 0
	for _, o := range outcomes {
		if o.Err == nil {
			changed++
			continue
		}
		fail := bulkFailure{Name: clean(ops.UnicodeName(o.Name)), Path: "/devices/" + o.ID.String(), Why: c.whyNot(o.Err)}
		if o.Name == "" {
			fail.Name, fail.Path = "A device that is not there any more", ""
		}
		view.Failed = append(view.Failed, fail)
	}
	if len(view.Failed) == 0 {
		return v.redirect(withDone(back, what, changed))
	}
	view.Title = plural(len(view.Failed), "device") + " could not be changed"
	if change.Delete {
		view.Title = plural(len(view.Failed), "device") + " could not be deleted"
	}
	if view.Done = doneText(what, changed); changed == 0 {
		view.Done = "Nothing was changed."
	}
	return c.render(v, http.StatusUnprocessableEntity, "bulk", view)
}

// chosen is the devices that a form is about: those that were ticked, or all of the list.
func (c *Console) chosen(v *visit, f url.Values, back string) (ids []cert.NodeID, err error) {
	words := f["id"]
	if f.Get("all") != "" {
		u, err := url.Parse(back)
		if err != nil {
			return nil, errBadForm
		}
		query := deviceQuery(u.Query())
		query.Offset, query.Limit = 0, 0
		var total int
		if words, total, err = c.ops.DeviceIDs(v.ctx(), v.actor, query); err != nil {
			return nil, err
		}
		if total > len(words) {
			return nil, ops.Invalid("at most %d devices can be changed at once, and these are %d; narrow the list first", ops.MaxDeviceChange, total)
		}
	}
	for _, w := range words {
		id, err := cert.ParseNodeID(w)
		if err != nil {
			return nil, errBadForm
		}
		if !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	if len(ids) > ops.MaxDeviceChange {
		return nil, ops.Invalid("at most %d devices can be changed at once, and these are %d", ops.MaxDeviceChange, len(ids))
	}
	return ids, nil
}

// confirmDelete is the page that asks before devices are deleted. It is about the devices
// that are still there; without any it has answered already.
func (c *Console) confirmDelete(v *visit, ids []cert.NodeID, back string) (bulkView, error) {
	view := bulkView{Do: "delete-now", Back: back}
	names := map[string]string{}
	err := c.ops.EachDeviceOf(v.ctx(), v.actor, ops.DeviceQuery{}, func(d ops.Device) error {
		names[d.ID.String()] = d.Title
		return nil
	})
	if err != nil {
		return view, err
	}
	for _, id := range ids {
		word := id.String()
		name, ok := names[word]
		if !ok {
			continue
		}
		view.IDs = append(view.IDs, word)
		if len(view.Names) < namesShown {
			view.Names = append(view.Names, clean(name))
		} else {
			view.More++
		}
	}
	n := len(view.IDs)
	switch n {
	case 0:
		return view, c.render(v, http.StatusUnprocessableEntity, "bulk", bulkView{Title: "Nothing was changed", Problem: "These devices are not there any more.", Back: back})
	case 1:
		view.MustBe, view.What = view.Names[0], "its name"
	default:
		view.MustBe, view.What = strconv.Itoa(n), "their number"
	}
	view.Title = "Delete " + plural(n, "device") + "?"
	return view, nil
}

// whyNot is why a device was not changed.
func (c *Console) whyNot(err error) string {
	switch {
	case errors.Is(err, ops.ErrNotFound):
		if text := err.Error(); strings.HasPrefix(text, "user ") {
			return "There is no user of this name."
		}
		return "It is not there any more."
	case errors.Is(err, ops.ErrForbidden):
		return "You may not do this to it."
	}
	if text := problemText(err); text != "" {
		return text
	}
	c.log.Error("change a device of many", "err", err)
	return "The server could not do it. Its log says why."
}

// withDone is the list, which says what was done to how many.
func withDone(back, what string, n int) string {
	u, err := url.Parse(back)
	if err != nil {
		return back
	}
	q := u.Query()
	q.Set("did", what)
	q.Set("n-did", strconv.Itoa(n))
	u.RawQuery = q.Encode()
	return u.String()
}

// changedText is what the list says was just done, from its address: by name and number, so
// that an address cannot put words into the console's mouth.
func changedText(q url.Values) string {
	n, err := strconv.Atoi(q.Get("n-did"))
	if err != nil || n < 1 || n > ops.MaxDeviceChange {
		return ""
	}
	return doneText(q.Get("did"), n)
}

func doneText(what string, n int) string {
	switch what {
	case "add-tag":
		return plural(n, "device") + " got the tag. Older certificates are revoked; devices fetch the new ones by themselves."
	case "remove-tag":
		return plural(n, "device") + " lost the tag. Older certificates are revoked; devices fetch the new ones by themselves."
	case "owner":
		return plural(n, "device") + " changed hands. Older certificates are revoked; devices fetch the new ones by themselves."
	case "delete", "delete-now":
		return plural(n, "device") + " deleted. Their certificates are revoked."
	}
	return ""
}

// deviceIDs answers scripts of the list with ids: of a range of it, or of all of it.
func (c *Console) deviceIDs(v *visit) error {
	q := v.r.URL.Query()
	query := deviceQuery(q)
	if query.Limit = ops.MaxDeviceChange; q.Has("n") {
		if n, err := strconv.Atoi(q.Get("n")); err == nil && n > 0 {
			query.Limit = n
		}
	}
	ids, total, err := c.ops.DeviceIDs(v.ctx(), v.actor, query)
	if errors.Is(err, ops.ErrInvalid) {
		return errBadForm
	}
	if err != nil {
		return err
	}
	v.w.Header().Set("Content-Type", "application/json")
	if v.r.Method == http.MethodHead {
		return nil
	}
	return json.NewEncoder(v.w).Encode(struct {
		IDs   []string `json:"ids"`
		Total int      `json:"total"`
	}{append([]string{}, ids...), total})
}
