package console

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"weft/coord/ops"
)

const devicesPerPage = 50

type devicesView struct {
	List        []deviceView
	Text, State string
	Total       int
	Online, All string
	Empty       bool // no device at all
	Self        string
	Tabs        []tab
	From, To    string
	Prev, Next  string
	Unaware     string   // how many do not know all of URLs yet, "" for none
	Revocations string   // what is wrong with the revocation list, "" for nothing
	URLs        []string // the server's addresses when there are several
	Mine        *mineView
}

type tab struct {
	Text, Href string
	Here       bool
}

// devices is the list. It is also what live updates and the search field
// fetch: they take #device-list out of the same page.
func (c *Console) devices(v *visit) error {
	q := v.r.URL.Query()
	query := ops.DeviceQuery{Filter: strings.ToValidUTF8(cut(strings.TrimSpace(q.Get("q")), 100), ""), Sort: q.Get("sort"), Limit: devicesPerPage}
	if s := q.Get("state"); s == "online" || s == "offline" {
		query.State = s
	}
	if n, err := strconv.Atoi(q.Get("from")); err == nil && n > 0 && n <= 10_000_000 {
		query.Offset = n
	}
	list, err := c.ops.Devices(v.ctx(), v.actor, query)
	if err != nil {
		return err
	}
	revocations, err := c.ops.ShowRevocations(v.actor)
	if err != nil {
		return err
	}
	view := devicesView{
		Text: clean(query.Filter), State: query.State, Total: list.Total,
		Online: thousands(list.Online), All: thousands(list.All),
		Empty: list.All == 0,
		Self:  devicesPath(query),

		Revocations: revocationsText(revocations),
	}
	if list.Unaware > 0 {
		view.Unaware = thousands(list.Unaware)
	}
	if urls := c.ops.Network().URLs; len(urls) > 1 || list.Unaware > 0 {
		view.URLs = cleanAll(urls)
	}
	for _, d := range list.Devices {
		view.List = append(view.List, c.deviceView(d))
	}
	for _, t := range []struct{ text, state string }{{"All", ""}, {"Online", "online"}, {"Offline", "offline"}} {
		view.Tabs = append(view.Tabs, tab{t.text, devicesPath(ops.DeviceQuery{Filter: query.Filter, State: t.state}), t.state == query.State})
	}
	if n := len(list.Devices); list.Total > n && n > 0 {
		view.From, view.To = thousands(query.Offset+1), thousands(query.Offset+n)
	}
	if query.Offset > 0 {
		prev := query
		prev.Offset = max(0, query.Offset-devicesPerPage)
		view.Prev = devicesPath(prev)
	}
	if query.Offset+len(list.Devices) < list.Total && len(list.Devices) > 0 {
		next := query
		next.Offset += devicesPerPage
		view.Next = devicesPath(next)
	}
	if v.actor.Role == ops.RoleMember && !v.partial() && query.Filter == "" && query.Offset == 0 {
		if view.Mine, err = c.mine(v); err != nil {
			return err
		}
	}
	return c.render(v, http.StatusOK, "devices", view)
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

// TotalText is the number of matches in words.
func (v devicesView) TotalText() string { return plural(v.Total, "device") }

func devicesPath(q ops.DeviceQuery) string {
	u := url.Values{}
	if q.Filter != "" {
		u.Set("q", q.Filter)
	}
	if q.State != "" {
		u.Set("state", q.State)
	}
	if q.Offset > 0 {
		u.Set("from", strconv.Itoa(q.Offset))
	}
	if len(u) == 0 {
		return "/devices"
	}
	return "/devices?" + u.Encode()
}
