package console

import (
	"net/http"
	"net/url"
	"strconv"

	"weft/coord/store"
)

// The tab Activity of a device: the records of the audit about it. Who may not read the
// audit does not have the tab.

type deviceActs struct {
	List        []actView
	First, Next string // addresses of pages, "" for none
	All         string // of the same records where they can be filtered and exported
}

func (c *Console) deviceActivity(v *visit) error {
	d, err := v.deviceHere()
	if err != nil {
		return err
	}
	id := d.ID.String()
	at := "/devices/" + id + "/activity"
	w := store.AuditFilter{Target: id, Limit: actsPerPage}
	if n, err := strconv.ParseUint(v.r.URL.Query().Get("before"), 10, 62); err == nil {
		w.Cursor = n
	}
	records, err := c.ops.AuditPage(v.ctx(), v.actor, w)
	if err != nil {
		return err
	}
	view := deviceActs{All: "/activity?" + url.Values{"device": {id}}.Encode()}
	for _, l := range records.Records {
		view.List = append(view.List, c.actView(l))
	}
	if w.Cursor > 0 {
		view.First = at
	}
	if records.Next > 0 {
		view.Next = at + "?before=" + strconv.FormatUint(records.Next, 10)
	}
	return c.devicePage(v, http.StatusOK, d, devicePage{Tab: "activity", Activity: &view})
}
