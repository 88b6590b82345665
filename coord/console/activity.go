package console

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"weft/coord/audit"
	"weft/coord/store"
)

// The page Activity: the records of the audit, filtered, with the values before and
// after; their export and their check. Beside it are the introductions that devices
// report. An actor who may not read the audit sees none of it.

const actsPerPage = 50

// actView is a record with every string fit to show.
type actView struct {
	Seq          uint64
	At           stamp
	Who, Role    string
	Via, From    string
	What, Op     string // in words, and the name of the operation
	Kind, Target string
	TargetID     string
	Device       string // path of its page, "" if it is no device
	Refused      string
	Count        uint32
	Changes      []fieldChange
	Hash         string
}

// actWords describe operations. One that is not here is shown by its name.
var actWords = map[string]string{
	"device.join": "Joined", "device.renew": "Renewed its certificate", "device.leave": "Left", "device.rename": "Renamed", "device.replace": "Replaced",
	"device.assign": "Gave it other tags or another owner",
	"device.delete": "Deleted", "device.dns": "Changed its DNS settings", "key.create": "Made a key", "key.revoke": "Revoked a key",
	"request.ask": "Asked to join", "request.approve": "Let a device in", "request.deny": "Refused a device",
	"dns.edit": "Changed DNS", "dns.names_end": "Ended a former name", "relay.join": "Relay joined", "relay.update": "Relay changed", "relay.remove": "Removed a relay",
	"policy.set": "Changed the policy", "crl.recall": "Sent a newer revocation list", "user.create": "Made a user", "user.delete": "Deleted a user",
	"user.edit": "Changed what a user may do", "user.name": "Changed a display name", "user.suspend": "Suspended a user", "user.resume": "Resumed a user",
	"user.invite": "Invited a person", "user.uninvite": "Ended an invitation",
	"group.create": "Made a group", "group.edit": "Changed a group", "group.delete": "Deleted a group",
	"user.link": "Made a sign-in link", "user.password": "Changed the password", "session.create": "Signed in", "session.end": "Session ended",
	"network.restore": "Restored a backup", "network.configure": "Started with other settings", "network.backup": "Made a backup",
	"audit.configure": "Changed settings of the audit", "audit.trim": "Removed old records",
}

// actKinds are the choices of the filter: what an operation's name begins with.
var actKinds = []struct{ Prefix, Text string }{
	{"", "Everything"}, {"device.", "Devices"}, {"request.", "Requests to join"}, {"key.", "Keys"}, {"session.", "Sign-ins"}, {"user.", "Users"}, {"dns.", "DNS"},
	{"policy.", "Policy"}, {"relay.", "Relays"}, {"network.", "Server"}, {"audit.", "Audit"},
}

type activityView struct {
	List      []actView
	Who, What string
	Device    string
	Since     string
	Refused   bool
	Kinds     []tab // of the filter; Href is the value
	Filtered  bool
	Next      string // path of the page with earlier ones, "" for none
	First     string // path of the first page, "" on it
	Looked    bool   // the next page may have records although this one is short
	Export    string
	Tabs      []tab
	Problem   string
	Keep      string
	Verified  verifiedView
	Head      string
}

func (c *Console) activity(v *visit) error {
	return c.activityPage(v, http.StatusOK, activityView{})
}

// activityPage draws the page; view has the result of a form, if any.
func (c *Console) activityPage(v *visit, status int, view activityView) error {
	w, err := c.actFilter(v, &view)
	if err != nil {
		return err
	}
	page, err := c.ops.AuditPage(v.ctx(), v.actor, w)
	if err != nil {
		return err
	}
	set, err := c.ops.AuditSettings(v.actor)
	if err != nil {
		return err
	}
	for _, l := range page.Records {
		view.List = append(view.List, c.actView(l))
	}
	q := actQuery(view)
	view.Export = actPath("/activity/export", q)
	if page.Next > 0 {
		q.Set("before", strconv.FormatUint(page.Next, 10))
		view.Next, view.Looked = actPath("/activity", q), len(page.Records) < actsPerPage
	}
	if q.Del("before"); w.Cursor > 0 {
		view.First = actPath("/activity", q)
	}
	for _, k := range actKinds {
		view.Kinds = append(view.Kinds, tab{k.Text, k.Prefix, k.Prefix == view.What})
	}
	view.Tabs, view.Keep = actTabs("/activity"), keepText(set.KeepSeconds)
	return c.render(v, status, "activity", view)
}

func actTabs(here string) []tab {
	return []tab{{"Records", "/activity", here == "/activity"}, {"Introductions", "/activity/introductions", here == "/activity/introductions"}}
}

// keepText says how long records stay.
func keepText(seconds int64) string {
	switch days := seconds / 86400; {
	case seconds == 0:
		return "Records are kept for ever"
	case days*86400 == seconds:
		return "Records are kept for " + plural(int(days), "day")
	}
	return "Records are kept for " + strings.TrimPrefix(until(time.Duration(seconds)*time.Second), "in ")
}

// actFilter reads the filter in the address into view.
func (c *Console) actFilter(v *visit, view *activityView) (w store.AuditFilter, err error) {
	q := v.r.URL.Query()
	word := func(name string) string {
		return strings.ToValidUTF8(cut(strings.TrimSpace(q.Get(name)), audit.MaxText), "")
	}
	w = store.AuditFilter{User: word("who"), Target: word("device"), Refused: q.Get("refused") == "1", Limit: actsPerPage}
	for _, k := range actKinds {
		if k.Prefix == q.Get("what") {
			w.Op = k.Prefix
		}
	}
	if text := q.Get("since"); text != "" {
		if w.Since, err = time.Parse(time.DateOnly, text); err != nil || w.Since.Year() < 1970 {
			view.Problem, w.Since = "A day is written as in 2026-11-29.", time.Time{}
		} else {
			view.Since = w.Since.Format(time.DateOnly)
		}
	}
	if n, err := strconv.ParseUint(q.Get("before"), 10, 62); err == nil {
		w.Cursor = n
	}
	view.Who, view.Device, view.What, view.Refused = clean(w.User), clean(w.Target), w.Op, w.Refused
	view.Filtered = w.User != "" || w.Target != "" || w.Op != "" || view.Since != "" || w.Refused
	return w, nil
}

// actQuery is the filter as a query of an address.
func actQuery(view activityView) url.Values {
	q := url.Values{}
	for name, value := range map[string]string{"who": view.Who, "what": view.What, "device": view.Device, "since": view.Since} {
		if value != "" {
			q.Set(name, value)
		}
	}
	if view.Refused {
		q.Set("refused", "1")
	}
	return q
}

func actPath(path string, q url.Values) string {
	if len(q) == 0 {
		return path
	}
	return path + "?" + q.Encode()
}

func (c *Console) actView(l audit.Line) actView {
	at, err := time.Parse(time.RFC3339, l.At)
	if err != nil {
		at = time.Time{}
	}
	a := actView{
		Seq: l.Seq, At: c.stamp(at), Who: clean(l.User), Role: clean(l.Role), Via: clean(l.Via), From: clean(l.From),
		What: actWords[l.Op], Op: clean(l.Op), Kind: clean(l.Kind), Target: clean(l.Name), TargetID: clean(l.ID),
		Refused: clean(l.Refused), Count: l.Count, Changes: changesOf(l.Before, l.After), Hash: clean(l.Hash),
	}
	if a.What == "" {
		a.What = a.Op
	}
	if a.Target == "" && l.ID != "" {
		a.Target = a.TargetID
	}
	if l.Kind == "device" && idPattern.MatchString(l.ID) {
		a.Device = "/devices/" + l.ID
	}
	if l.Via == audit.Node && l.User == l.ID { // it acts on itself: its name says more
		a.Who = a.Target
	}
	return a
}
