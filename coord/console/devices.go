package console

import (
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"weft/coord/ops"
)

// A page of the list without a script, and with one: as many rows as are in view, and about
// as many before and after them.
const (
	devicesPerPage = 50
	maxDeviceRows  = 300
)

type devicesView struct {
	List        []deviceRow
	Query       string // what the search field holds
	Problem     string // with it
	Chips       []tab
	Filters     []filterGroup
	Total, From int
	Online, All string
	Empty       bool // no device at all
	Self        string
	All0        string // the list without any filter, in the same order
	Export      string
	Tabs        []tab
	FirstText   string // the numbers of the first and the last device on the page
	LastText    string
	Prev, Next  string
	Unaware     string // how many do not know all addresses of the server yet, "" for none
	Revocations string // what is wrong with the revocation list, "" for nothing
	Columns     []deviceColumn
	Show        map[string]bool // columns that are shown
	Roomy       bool
	Bulk        bool // something can be done to many
	HandOver    bool // so can giving them away
	Sort        string
	Changed     string // what was just done to how many
	Mine        *mineView
}

// Wide is how many cells a row has.
func (v devicesView) Wide() int {
	n := 1 // the box
	for _, c := range v.Columns {
		if c.Shown {
			n++
		}
	}
	return n
}

type tab struct {
	Text, Href string
	Here       bool
}

// deviceRow is a device as the list has it.
type deviceRow struct {
	deviceView
	Status statusView
	Why    string // more about its status, "" for nothing
	Shown  []string
	Number int // its row of the table, whose first one is the heads
}

// deviceColumn is a column that can be left out.
type deviceColumn struct {
	ID, Title string
	Href      string // the list sorted by it
	Sort      string // "ascending", "descending", "" for not sorted by it
	Shown     bool
}

// devices is the list. It is also what live updates, scrolling and the search field fetch:
// they take a part out of the same page.
func (c *Console) devices(v *visit) error {
	look := c.deviceLook(v.r)
	query, problem := deviceQuery(v.r.URL.Query()), ""
	list, err := c.ops.Devices(v.ctx(), v.actor, query)
	if err == nil && len(list.Devices) == 0 && list.Total > 0 { // it has become shorter
		query.Offset = (list.Total - 1) / devicesPerPage * devicesPerPage
		list, err = c.ops.Devices(v.ctx(), v.actor, query)
	}
	if text := problemText(err); text != "" {
		problem = text
		list, err = c.ops.Devices(v.ctx(), v.actor, ops.DeviceQuery{Limit: 1})
		list.Devices, list.Total = nil, 0
	}
	if err != nil {
		return err
	}
	live := v.r.Header.Get(passiveHeader) == "list" && v.partial() // who asks shows the rows only
	if live && list.All == 0 {                                     // the last one is gone
		v.w.Header().Set("HX-Refresh", "true")
	}
	revocations, err := c.ops.ShowRevocations(v.actor)
	if err != nil {
		return err
	}
	view := devicesView{
		Query: asTyped([]string{query.Filter}), Problem: problem, Total: list.Total, From: query.Offset,
		Online: thousands(list.Online), All: thousands(list.All),
		Empty: list.All == 0, Sort: query.Sort,
		Self: devicesPath(query), All0: devicesPath(ops.DeviceQuery{Sort: query.Sort}), Export: exportPath(query),
		Roomy: look.roomy, Show: look.shown, Columns: deviceColumns(query, look),
		Changed: changedText(v.r.URL.Query()),

		Revocations: revocationsText(revocations),
	}
	view.Bulk, view.HandOver = mayAssign(v.actor)
	if list.Unaware > 0 {
		view.Unaware = thousands(list.Unaware)
	}
	for i, d := range list.Devices {
		view.List = append(view.List, c.deviceRow(d, query.Offset+i+2))
	}
	if !live {
		if err := c.filters(v, &view, query); err != nil {
			return err
		}
	}
	if n := len(list.Devices); list.Total > n && n > 0 {
		view.FirstText, view.LastText = thousands(query.Offset+1), thousands(query.Offset+n)
	}
	if query.Offset > 0 {
		prev := query
		prev.Offset = max(0, query.Offset-devicesPerPage)
		view.Prev = devicesPath(prev)
	}
	if query.Offset+len(list.Devices) < list.Total && len(list.Devices) > 0 {
		next := query
		next.Offset += len(list.Devices)
		view.Next = devicesPath(next)
	}
	if v.actor.Role == ops.RoleMember && !v.partial() && query.Filter == "" && query.Offset == 0 {
		if view.Mine, err = c.mine(v); err != nil {
			return err
		}
	}
	if live {
		return c.fragment(v, "devices", "devicelist", view)
	}
	return c.render(v, http.StatusOK, "devices", view)
}

// deviceQuery is what an address asks for. What makes no sense is left out; of what cannot
// be understood in the filter the service says so.
func deviceQuery(q url.Values) ops.DeviceQuery {
	query := ops.DeviceQuery{Filter: strings.ToValidUTF8(cut(strings.TrimSpace(q.Get("q")), 1000), ""), Limit: devicesPerPage}
	if s := q.Get("state"); s == "online" || s == "offline" { // links from before there were filters
		query.Filter = strings.TrimSpace(query.Filter + " is:" + s)
	}
	if s := q.Get("sort"); slices.Contains(ops.DeviceSorts, strings.TrimPrefix(s, "-")) && s != "name" {
		query.Sort = s
	}
	if n, err := strconv.Atoi(q.Get("from")); err == nil && n > 0 && n <= 10_000_000 {
		query.Offset = n
	}
	if n, err := strconv.Atoi(q.Get("n")); err == nil && n > 0 {
		query.Limit = min(n, maxDeviceRows)
	}
	return query
}

func (c *Console) deviceRow(d ops.Device, number int) deviceRow {
	row := deviceRow{deviceView: c.deviceView(d), Number: number}
	row.Shown = cleanAll(ops.ShownTags(d.Tags))
	kind, word := "offline", ""
	switch {
	case row.Expired:
		kind, word = "attention", "Expired"
		row.Why = "Its certificate ended " + row.Expires.Text + "; it reaches nobody. weft doctor on the device says why it was not renewed."
	case row.Overdue:
		kind, word = "attention", "Not renewed"
		row.Why = "Its certificate ends " + row.Expires.Text + " and should have been renewed. weft doctor on the device says why."
	case row.SignIn != nil && row.SignIn.Overdue:
		kind, word = "attention", "Sign in again"
		row.Why = "It reaches nothing: it was to be signed in again " + row.SignIn.Due.Text + ". weft up on it does that."
	case row.Online && row.Heard != "":
		kind, word = "stale", "Silent"
		row.Why = "It is connected, and was last heard " + row.Heard + "."
	case row.Online:
		kind = "online"
	case row.Unknown:
		kind, word = "pending", "Checking"
		row.Why = "The server or a relay has just started and has no report about it yet."
	}
	if in := row.SignIn; in != nil && in.Soon && !in.Overdue {
		row.Why = strings.TrimSpace(row.Why + " It has to be signed in again " + in.Due.Text + ": weft up on it does that.")
	}
	if d.Pending {
		row.Why = strings.TrimSpace(row.Why + " It has not fetched the certificate for its latest tags and owner yet.")
	}
	if row.Unaware {
		row.Why = strings.TrimSpace(row.Why + " It does not know all addresses of the server yet.")
	}
	row.Status = statusView{kind, word}
	if word == "" {
		row.Status.Word = statusWords[kind]
	}
	return row
}

// revocationsText is what is wrong with the revocation list, "" for nothing.
func revocationsText(r ops.Revocations) string {
	switch full := r.Bytes * 100 / r.Max; {
	case r.Left > 0:
		return "The revocation list is full. " + plural(r.Left, "deleted certificate") + " found no room in it: relays refuse them, while they reach this server. Delete no more devices than need be until some of those have ended; weft-server doctor says more."
	case full >= 50:
		return "The revocation list is " + strconv.Itoa(full) + " % full. Certificates are shorter until it empties by itself; weft-server doctor says more."
	}
	return ""
}

// Rows is how many rows the table would have with all of them, its heads among them.
func (v devicesView) Rows() int { return v.Total + 1 }

// TotalText is the number of matches in words.
func (v devicesView) TotalText() string { return plural(v.Total, "device") }

// ResultText is how many there are of how many.
func (v devicesView) ResultText() string {
	if len(v.Chips) == 0 && v.Query == "" {
		return plural(v.Total, "device")
	}
	return thousands(v.Total) + " of " + v.All + " devices"
}

func devicesPath(q ops.DeviceQuery) string { return withQuery("/devices", q) }

func withQuery(path string, q ops.DeviceQuery) string {
	u := url.Values{}
	if q.Filter != "" {
		u.Set("q", q.Filter)
	}
	if q.Sort != "" {
		u.Set("sort", q.Sort)
	}
	if q.Offset > 0 {
		u.Set("from", strconv.Itoa(q.Offset))
	}
	if len(u) == 0 {
		return path
	}
	return path + "?" + u.Encode()
}
