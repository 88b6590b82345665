package console

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"weft/coord/audit"
	"weft/coord/ops"
	"weft/coord/store"
)

// The audit: who did what, filtered, with what was there before and after; as a file; and
// checked. Beside it what devices report of introductions. Who may not read the audit has
// none of it.

const actsPerPage = 50

// actView is a record with every string fit to show.
type actView struct {
	Seq          uint64
	At           stamp
	Who, Role    string
	Via, From    string
	What, Op     string // in words, and as it is called
	Kind, Target string
	TargetID     string
	Device       string // path of its page, "" if it is no device
	Refused      string
	Count        uint32
	Changes      []fieldChange
	Hash         string
}

// fieldChange is one field of what changed. Before and After are "" where it was not there.
type fieldChange struct {
	Field         string
	Before, After string
	Both          bool // whether something was there before and after
}

// actWords say what was done. What is not here is shown as it is called.
var actWords = map[string]string{
	"device.join": "Joined", "device.renew": "Renewed its certificate", "device.leave": "Left", "device.rename": "Renamed", "device.replace": "Replaced",
	"device.delete": "Deleted", "device.dns": "Changed how it answers", "key.create": "Made a key", "key.revoke": "Revoked a key",
	"dns.edit": "Changed DNS", "dns.names_end": "Ended a former name", "relay.join": "Relay joined", "relay.update": "Relay changed", "relay.remove": "Removed a relay",
	"policy.set": "Changed the policy", "crl.recall": "Brought a revocation list", "user.create": "Made a user", "user.delete": "Deleted a user",
	"user.link": "Made a sign-in link", "user.password": "Changed the password", "session.create": "Signed in", "session.end": "Session ended",
	"network.restore": "Restored a backup", "network.configure": "Started with other settings", "network.backup": "Made a backup",
	"audit.configure": "Changed what the audit keeps", "audit.trim": "Removed old records",
}

// actKinds are the choices of the filter: what an operation's name begins with.
var actKinds = []struct{ Prefix, Text string }{
	{"", "Everything"}, {"device.", "Devices"}, {"key.", "Keys"}, {"session.", "Sign-ins"}, {"user.", "Users"}, {"dns.", "DNS"},
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
	Looked    bool   // that page may have something although this one is short
	Export    string
	Tabs      []tab
	Problem   string
	Keep      string
	Verified  verifiedView
	Head      string
}

// verifiedView is what checking the audit came to.
type verifiedView struct {
	Done, Good bool
	Text       string
	Compared   string
	Removed    stamp
}

func (c *Console) activity(v *visit) error {
	return c.activityPage(v, http.StatusOK, activityView{})
}

// activityPage draws the page; view has what a form came to, if any.
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

// keepText says for how long records stay.
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

// actQuery is the filter as an address has it.
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
	if l.Via == audit.Node && l.User == l.ID { // of itself: its name says more
		a.Who = a.Target
	}
	return a
}

// changesOf are the fields in which two values differ, or all of the one that there is.
func changesOf(before, after json.RawMessage) []fieldChange {
	was, is := fieldsOf(before), fieldsOf(after)
	var names []string
	for name := range was {
		names = append(names, name)
	}
	for name := range is {
		if _, ok := was[name]; !ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	var out []fieldChange
	const most = 60
	for _, name := range names {
		b, wasThere := was[name]
		a, isThere := is[name]
		if wasThere && isThere && bytes.Equal(b, a) {
			continue
		}
		if len(out) == most {
			return append(out, fieldChange{Field: "…"})
		}
		out = append(out, fieldChange{Field: clean(name), Before: valueText(b), After: valueText(a), Both: len(was) > 0 && len(is) > 0})
	}
	return out
}

// fieldsOf are the fields of a JSON object, or another value by the name of "value".
func fieldsOf(v json.RawMessage) (fields map[string]json.RawMessage) {
	if len(v) == 0 || string(v) == "null" {
		return nil
	}
	if json.Unmarshal(v, &fields) == nil {
		return fields
	}
	return map[string]json.RawMessage{"value": v}
}

// valueText is a JSON value to read: a text as it is, with its lines.
func valueText(v json.RawMessage) string {
	if len(v) == 0 {
		return ""
	}
	var text string
	if json.Unmarshal(v, &text) != nil {
		text = string(v)
	} else if text == "" {
		return "(empty)"
	}
	const mostLines = 200
	var out []string
	for line := range strings.Lines(text) {
		if len(out) == mostLines {
			out = append(out, "…")
			break
		}
		out = append(out, cleanLine(strings.TrimRight(line, "\r\n")))
	}
	return strings.Join(out, "\n")
}

// cleanLine is clean for a line that may be longer, and indented.
func cleanLine(s string) string {
	const most, part = 2000, 100
	var out strings.Builder
	s = strings.ReplaceAll(s, "\t", "    ")
	start, n := 0, 0
	for i := range s {
		if n++; n <= part {
			continue
		}
		out.WriteString(clean(s[start:i]))
		if start, n = i, 1; out.Len() > most {
			return out.String() + "…"
		}
	}
	out.WriteString(clean(s[start:]))
	return out.String()
}

// exportActivity sends what the filter selects as NDJSON, the earliest first.
func (c *Console) exportActivity(v *visit) error {
	var view activityView
	w, err := c.actFilter(v, &view)
	if err != nil {
		return err
	}
	w.Oldest, w.Cursor, w.Limit = true, 0, 0
	started := false
	var b []byte
	for {
		page, err := c.ops.AuditPage(v.ctx(), v.actor, w)
		if err != nil && !started {
			return err
		}
		if !started {
			started = true
			h := v.w.Header()
			h.Set("Content-Type", "application/x-ndjson; charset=utf-8")
			h.Set("Content-Disposition", `attachment; filename="weft-audit-`+c.now().UTC().Format("20060102-150405")+`.ndjson"`)
		}
		b = b[:0]
		for _, l := range page.Records {
			if err != nil {
				break
			}
			var r audit.Record
			var hash audit.Hash
			if r, hash, err = l.Record(); err == nil {
				b, err = audit.AppendJSON(b, r, hash)
			}
		}
		if err == nil {
			_, err = v.w.Write(b)
		}
		if err != nil {
			c.log.Info("an export of the audit broke off", "err", err)
			panic(http.ErrAbortHandler) // a file that ends early must not look whole
		}
		if w.Cursor = page.Next; w.Cursor == 0 {
			return nil
		}
	}
}

// verifyActivity checks the whole audit. It takes a while, so one at a time.
func (c *Console) verifyActivity(v *visit) error {
	if !c.verifying.TryLock() {
		return errBusy
	}
	defer c.verifying.Unlock()
	view := activityView{Head: clean(cut(strings.TrimSpace(v.r.PostForm.Get("head")), 1000))}
	var outside *audit.Head
	if text := strings.TrimSpace(v.r.PostForm.Get("head")); text != "" {
		h, err := audit.ParseHead(cut(text, 1000))
		if err != nil {
			view.Verified = verifiedView{Done: true, Text: problemText(ops.Invalid("%v", err))}
			return c.activityPage(v, http.StatusUnprocessableEntity, view)
		}
		outside = &h
	}
	report, err := c.ops.VerifyAudit(v.ctx(), v.actor, outside)
	if problem := problemText(err); problem != "" {
		view.Verified = verifiedView{Done: true, Text: problem}
		return c.activityPage(v, http.StatusUnprocessableEntity, view)
	}
	if err != nil {
		return err
	}
	view.Head = ""
	view.Verified = c.verifiedView(report, outside)
	return c.activityPage(v, http.StatusOK, view)
}

func (c *Console) verifiedView(r ops.AuditReport, outside *audit.Head) verifiedView {
	view := verifiedView{Done: true, Good: r.Fault == nil}
	if r.Removed != nil {
		view.Removed = c.stamp(*r.Removed)
	}
	if r.Fault != nil {
		view.Text = "Something is wrong: " + clean(r.Fault.Error()) + ". Compare with a backup, and find out who has access to the server."
		return view
	}
	switch {
	case r.Last == 0:
		view.Text = "There are no records yet."
	case r.Last < r.First:
		view.Text = "All records up to " + strconv.FormatUint(r.Last, 10) + " were removed for their age."
	default:
		view.Text = "Records " + strconv.FormatUint(r.First, 10) + " to " + strconv.FormatUint(r.Last, 10) + " are as they were written, and signed for."
	}
	switch {
	case outside != nil && r.Compared:
		view.Compared = "They fit the head that was kept elsewhere."
	case outside != nil:
		view.Compared = "The head is this network’s. What it speaks of was removed for its age, so it could not be compared: keep a new one."
	}
	return view
}

// claimView is a store.Introduction with every string fit to show.
type claimView struct {
	Device, DeviceID string
	Peer, User       string
	Several          bool
	Inbound          bool
	Count            int64
	First, Last      stamp
	Paths            string
	Doubts           []string
}

// claimDoubts say what speaks against a claim.
var claimDoubts = map[string]string{
	ops.DoubtUnknown: "no such device ever was", ops.DoubtDeleted: "it was deleted", ops.DoubtUnreachable: "policy lets neither reach the other",
	ops.DoubtName: "it is called or belongs otherwise", ops.DoubtTime: "it cannot have been then", ops.DoubtFull: "more in a day than is kept",
}

type claimsView struct {
	List    []claimView
	Tags    []string // whose devices report
	Device  string
	Problem string
	Next    string
	First   string
	Tabs    []tab
	Owner   bool
	Keep    string
}

func (c *Console) introductions(v *visit) error {
	view := claimsView{Tabs: actTabs("/activity/introductions"), Owner: v.actor.Role == ops.RoleOwner}
	set, err := c.ops.AuditSettings(v.actor)
	if err != nil {
		return err
	}
	view.Tags, view.Keep = cleanAll(set.Introductions), keepText(set.KeepSeconds)
	q := ops.IntroductionQuery{Device: strings.ToValidUTF8(cut(strings.TrimSpace(v.r.URL.Query().Get("device")), 255), ""), After: v.r.URL.Query().Get("after"), Limit: actsPerPage}
	view.Device = clean(q.Device)
	list, err := c.ops.Introductions(v.ctx(), v.actor, q)
	if problem := problemText(err); problem != "" {
		view.Problem = problem
	} else if errors.Is(err, ops.ErrNotFound) {
		view.Problem = "There is no such device. One that was deleted is found by its id."
	} else if err != nil {
		return err
	}
	for _, i := range list.Introductions {
		view.List = append(view.List, c.claimView(i))
	}
	again := url.Values{}
	if q.Device != "" {
		again.Set("device", q.Device)
	}
	if q.After != "" {
		view.First = actPath("/activity/introductions", again)
	}
	if list.Next != "" {
		again.Set("after", list.Next)
		view.Next = actPath("/activity/introductions", again)
	}
	return c.render(v, http.StatusOK, "introductions", view)
}

func (c *Console) claimView(i store.Introduction) claimView {
	view := claimView{
		Device: clean(i.DeviceName), DeviceID: i.Device.String(), Peer: clean(i.Name), User: clean(i.User), Several: i.IsSeveral(),
		Inbound: i.Inbound, Count: i.Count, First: c.stamp(i.First), Last: c.stamp(i.Last), Paths: strings.Join(strings.Fields(clean(i.Paths)), ", "),
	}
	if view.Device == "" {
		view.Device = view.DeviceID
	}
	if view.Peer == "" {
		view.Peer = i.Peer.String()
	}
	for _, d := range strings.Fields(i.Doubts) {
		if text := claimDoubts[d]; text != "" {
			view.Doubts = append(view.Doubts, text)
		}
	}
	return view
}

// reportIntroductions sets whether the devices with a tag report introductions.
func (c *Console) reportIntroductions(v *visit) error {
	tag, edit := strings.TrimSpace(v.r.PostForm.Get("tag")), ops.EditAudit{}
	switch v.r.PostForm.Get("report") {
	case "on":
		edit.Report = []string{tag}
	case "off":
		edit.NoReport = []string{tag}
	default:
		return errBadForm
	}
	_, err := ops.Do(v.ctx(), c.ops, v.actor, edit)
	if problem := problemText(err); problem != "" {
		return &pageError{http.StatusUnprocessableEntity, "Not saved", problem}
	}
	if err != nil {
		return err
	}
	return v.redirect("/activity/introductions?done=reports")
}
