package console

import (
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"weft/coord/audit"
	"weft/coord/store"
)

// The page Activity: the records of the audit, filtered, with the values before and
// after; their export and their check. Beside it are the introductions that devices
// report. An actor who may not read the audit sees none of it.

const actsPerPage = 100

// actView is a record with every string fit to show.
type actView struct {
	Seq          uint64
	At           stamp
	Who, Role    string
	User         string // the filter for who did it, "" if it has none
	Way          string // how it came in, in words
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
	"device.sign_in": "Signed it in again", "device.overdue": "Not signed in again in time",
	"device.assign": "Gave it other tags or another owner",
	"device.delete": "Deleted", "device.dns": "Changed its DNS settings", "key.create": "Made a key", "key.revoke": "Revoked a key",
	"request.ask": "Asked to join", "request.approve": "Let a device in", "request.deny": "Refused a device",
	"dns.edit": "Changed DNS", "dns.names_end": "Ended a former name", "relay.join": "Relay joined", "relay.update": "Relay changed", "relay.remove": "Removed a relay",
	"policy.set": "Changed the policy", "policy.revert": "Reverted the policy", "crl.recall": "Sent a newer revocation list", "user.create": "Made a user", "user.delete": "Deleted a user",
	"user.edit": "Changed what a user may do", "user.name": "Changed a display name", "user.suspend": "Suspended a user", "user.resume": "Resumed a user",
	"user.invite": "Invited a person", "user.uninvite": "Ended an invitation",
	"group.create": "Made a group", "group.edit": "Changed a group", "group.delete": "Deleted a group",
	"token.create": "Made an API token", "token.revoke": "Revoked an API token", "token.use": "Used an API token",
	"user.link": "Made a sign-in link", "user.password": "Changed the password", "session.create": "Signed in", "session.end": "Session ended",
	"session.extend": "Session went on at its provider", "factor.set": "Changed a second factor", "factor.reset": "Removed a second factor", "factor.prove": "Gave a code",
	"passkey.cloned": "Used a passkey that may be copied", "oidc.set": "Changed a sign-in provider", "identity.ask": "Asked to be let in", "identity.decide": "Decided about a person",
	"sign-in.set": "Changed how people sign in", "webhook.create": "Made a webhook", "webhook.edit": "Changed a webhook", "webhook.delete": "Deleted a webhook",
	"webhook.rotate": "Gave a webhook a new secret", "webhook.test": "Tested a webhook", "webhook.allow": "Allowed a webhook another target", "webhook.pause": "Paused a webhook",
	"network.restore": "Restored a backup", "network.configure": "Started with other settings", "network.backup": "Made a backup",
	"audit.configure": "Changed settings of the audit", "audit.trim": "Removed old records", "audit.refusals": "Counted refusals",
}

// actKinds are the choices of the filter: what an operation's name begins with.
var actKinds = []struct{ Prefix, Text string }{
	{"", "Everything"}, {"device.", "Devices"}, {"request.", "Requests to join"}, {"key.", "Keys"}, {"session.", "Sign-ins"}, {"user.", "Users"}, {"group.", "Groups"},
	{"token.", "API tokens"}, {"dns.", "DNS"}, {"policy.", "Policy"}, {"relay.", "Relays"}, {"webhook.", "Webhooks"}, {"network.", "Server"}, {"audit.", "Audit"},
}

// actWays are how requests came in, for people.
var actWays = map[string]string{audit.Console: "Console", audit.API: "API", audit.CLI: "Command line", audit.Node: "Device", audit.System: "Server"}

type actSpan struct {
	value, text string
	span        time.Duration
}

// actSpans are the spans of time of the filter.
var actSpans = []actSpan{{"1h", "Last hour", time.Hour}, {"24h", "Last 24 hours", 24 * time.Hour}, {"7d", "Last 7 days", 7 * 24 * time.Hour}, {"30d", "Last 30 days", 30 * 24 * time.Hour}}

type activityView struct {
	List []actView
	actFilter
	Kinds, Ways, Spans []tab // choices of the filter; Href is the value
	Chips              []tab
	Next               string // path of the page with earlier ones, "" for none
	First              string // path of the first page, "" on it
	Looked             bool   // the next page may have records although this one is short
	Export, ExportCSV  string
	Tabs               tabsView
	Keep               string
	Newer              newerView
}

// actFilter is the filter as it stands in the address.
type actFilter struct {
	Who, What, Device, Via string
	Since                  string // one of actSpans or a day
	Day                    string // if it is a day
	Refused                bool
	Problem                string
}

// newerView says how many records there are by now that a page does not show.
type newerView struct {
	Self  string // address of this part; "" for a page that is not the first
	Count string // "" for none
	Href  string
}

func (c *Console) activity(v *visit) error {
	var view activityView
	w := c.actFilter(v, &view.actFilter)
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
	q := view.query()
	view.Export = actPath("/activity/export", q)
	q.Set("format", "csv")
	view.ExportCSV = actPath("/activity/export", q)
	q.Del("format")
	if page.Next > 0 {
		q.Set("before", strconv.FormatUint(page.Next, 10))
		view.Next, view.Looked = actPath("/activity", q), len(page.Records) < actsPerPage
		q.Del("before")
	}
	if w.Cursor > 0 {
		view.First = actPath("/activity", q)
	} else {
		var last uint64
		if len(page.Records) > 0 {
			last = page.Records[0].Seq
		}
		view.Newer = newerOf(view.actFilter, last)
	}
	view.choices()
	view.Tabs, view.Keep = actTabs("/activity"), keepText(set.KeepSeconds)
	return c.render(v, http.StatusOK, "activity", view)
}

// maxNewer is how many newer records are counted.
const maxNewer = 100

// newerActivity is the part of the page that says how many records there are by now.
func (c *Console) newerActivity(v *visit) error {
	var f actFilter
	w := c.actFilter(v, &f)
	if !v.partial() {
		return v.redirect(actPath("/activity", f.query()))
	}
	last, _ := strconv.ParseUint(v.r.URL.Query().Get("after"), 10, 62)
	w.Oldest, w.Cursor, w.Limit = true, last, maxNewer
	page, err := c.ops.AuditPage(v.ctx(), v.actor, w)
	if err != nil {
		return err
	}
	view := newerOf(f, last)
	if n := len(page.Records); n >= maxNewer {
		view.Count = "More than " + thousands(maxNewer-1) + " new records"
	} else if n > 0 {
		view.Count = plural(n, "new record")
	}
	return c.fragment(v, "activity", "newer", view)
}

func newerOf(f actFilter, last uint64) newerView {
	q := f.query()
	view := newerView{Href: actPath("/activity", q)}
	q.Set("after", strconv.FormatUint(last, 10))
	view.Self = actPath("/activity/newer", q)
	return view
}

func actTabs(here string) tabsView {
	var tabs []tab
	for _, t := range []tab{{Text: "Records", Href: "/activity"}, {Text: "Introductions", Href: "/activity/introductions"}, {Text: "Verify", Href: "/activity/verify"}} {
		t.Here = t.Href == here
		tabs = append(tabs, t)
	}
	return tabsView{Name: "Activity", List: tabs}
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

// actFilter reads the filter in the address into f.
func (c *Console) actFilter(v *visit, f *actFilter) (w store.AuditFilter) {
	q := v.r.URL.Query()
	word := func(name string) string {
		return strings.ToValidUTF8(cut(strings.TrimSpace(q.Get(name)), audit.MaxText), "")
	}
	w = store.AuditFilter{User: word("who"), Target: word("device"), Refused: q.Get("refused") == "1", Limit: actsPerPage}
	what := q.Get("what")
	if actWords[what] != "" {
		w.Op = what
	}
	for _, k := range actKinds {
		if k.Prefix == what {
			w.Op = k.Prefix
		}
	}
	if actWays[q.Get("via")] != "" {
		w.Via = q.Get("via")
	}
	day := q.Get("day")
	if day == "" {
		day = q.Get("since")
	}
	if i := slices.IndexFunc(actSpans, func(s actSpan) bool { return s.value == day }); i >= 0 {
		f.Since, w.Since = day, c.now().Add(-actSpans[i].span)
	} else if day != "" {
		at, err := time.Parse(time.DateOnly, day)
		if err != nil || at.Year() < 1970 {
			f.Problem = "A day is written as in 2026-11-29."
		} else {
			f.Since, w.Since = at.Format(time.DateOnly), at
			f.Day = f.Since
		}
	}
	if n, err := strconv.ParseUint(q.Get("before"), 10, 62); err == nil {
		w.Cursor = n
	}
	f.Who, f.Device, f.What, f.Via, f.Refused = clean(w.User), clean(w.Target), w.Op, w.Via, w.Refused
	return w
}

// query is the filter as a query of an address.
func (f actFilter) query() url.Values {
	q := url.Values{}
	for name, value := range map[string]string{"who": f.Who, "what": f.What, "device": f.Device, "via": f.Via, "since": f.Since} {
		if value != "" {
			q.Set(name, value)
		}
	}
	if f.Refused {
		q.Set("refused", "1")
	}
	return q
}

// choices fills what the form offers, and what of it is in use.
func (view *activityView) choices() {
	kind := "Kind"
	add := func(name, param, value string) {
		q := view.query()
		q.Del(param)
		view.Chips = append(view.Chips, tab{Text: name + ": " + value, Href: actPath("/activity", q)})
	}
	for _, k := range actKinds {
		view.Kinds = append(view.Kinds, tab{k.Text, k.Prefix, k.Prefix == view.What})
		if k.Prefix == view.What && k.Prefix != "" {
			add(kind, "what", k.Text)
		}
	}
	if text := actWords[view.What]; text != "" {
		view.Kinds = append(view.Kinds, tab{text, view.What, true})
		add(kind, "what", text)
	}
	if view.Who != "" {
		add("Who", "who", view.Who)
	}
	if view.Device != "" {
		add("Done to", "device", view.Device)
	}
	view.Ways = []tab{{"Any way", "", view.Via == ""}}
	for _, way := range []string{audit.Console, audit.API, audit.CLI, audit.Node, audit.System} {
		view.Ways = append(view.Ways, tab{actWays[way], way, way == view.Via})
	}
	if view.Via != "" {
		add("Through", "via", actWays[view.Via])
	}
	view.Spans = []tab{{"Any time", "", view.Since == ""}}
	for _, s := range actSpans {
		view.Spans = append(view.Spans, tab{s.text, s.value, s.value == view.Since})
		if s.value == view.Since {
			add("Since", "since", strings.ToLower(s.text))
		}
	}
	if view.Day != "" {
		view.Spans = append(view.Spans, tab{"Since " + view.Day, view.Day, true})
		add("Since", "since", view.Day)
	}
	if view.Refused {
		add("Only", "refused", "refused")
	}
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
		Seq: l.Seq, At: c.stamp(at), Who: clean(l.User), Way: actWays[l.Via], Role: clean(l.Role), Via: clean(l.Via), From: clean(l.From),
		What: actWords[l.Op], Op: clean(l.Op), Kind: clean(l.Kind), Target: clean(l.Name), TargetID: clean(l.ID),
		Refused: clean(l.Refused), Count: l.Count, Changes: changesOf(l.Before, l.After), Hash: clean(l.Hash),
	}
	if a.User = l.User; clean(l.User) != l.User {
		a.User = ""
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
