package console

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"weft/coord/ops"
	"weft/overlay/age"
	"weft/overlay/cert"
)

const devicesPerPage = 50

// overdue reports whether the renewal of a certificate has failed for a while: it
// is renewed with a third of its life left, and has 7/30 left, 21 days of 90.
func overdue(d ops.Device, now time.Time) bool {
	return d.Issued != nil && d.Expires.Sub(now) < d.Expires.Sub(*d.Issued)*7/30
}

// deviceView is an ops.Device with every string fit to show.
type deviceView struct {
	ID, Path   string
	Name, FQDN string
	IPv4, IPv6 string
	Owner      string
	Tags       []string
	Online     bool
	Unknown    bool
	Heard      string // how long ago, of one that is online and has been silent
	Seen       stamp
	Joined     stamp
	Expires    stamp
	Expired    bool
	Overdue    bool // it should have been renewed long ago, and has not ended
	Relay      string
	Addr       string
	Hostname   string // "" when it is the name
	OS         string
	Software   string
	Ephemeral  bool
	Target     string // the name for command lines, or the address if the name is none
	ASCIIName  string // as others store it, when Name is not ASCII
	Aliases    []aliasView
	Wildcard   bool
	LANNames   string
	Unaware    bool // of an address of the server
}

// silentAfter is the silence of a device from which on the pages say how long it was.
// It was asked when the page was made, and answers in less.
const silentAfter = 10 * time.Second

func (c *Console) deviceView(d ops.Device) deviceView {
	seen := orZero(d.LastSeen)
	view := deviceView{
		ID:        d.ID.String(),
		Path:      "/devices/" + d.ID.String(),
		Name:      clean(d.Title),
		FQDN:      clean(d.FQDN),
		IPv4:      addrText(d.IPv4),
		IPv6:      addrText(d.IPv6),
		Owner:     clean(d.User),
		Tags:      cleanAll(d.Tags),
		Online:    d.Online,
		Unknown:   d.Unknown && !d.Online,
		Seen:      c.stamp(seen),
		Joined:    c.stamp(d.Created),
		Expires:   c.stamp(d.Expires),
		Expired:   d.Expires.Before(c.now()),
		Relay:     clean(d.Relay),
		Addr:      clean(d.Address),
		Hostname:  clean(d.Hostname),
		OS:        osText(d.OS),
		Software:  clean(d.Software),
		Ephemeral: d.Ephemeral,
		Target:    d.Name,
		Wildcard:  d.Wildcard,
		LANNames:  d.LANNames.String(),
		Unaware:   !d.KnowsURLs,
	}
	if silent := c.now().Sub(seen); d.Online && !seen.IsZero() && silent >= silentAfter {
		view.Heard = age.Ago(silent)
	}
	view.Overdue = !view.Expired && overdue(d, c.now())
	for _, a := range d.Aliases {
		view.Aliases = append(view.Aliases, aliasView{Name: clean(ops.UnicodeName(a.Name)), Until: c.stamp(a.Until)})
	}
	if view.Name != clean(d.Name) {
		view.ASCIIName = clean(d.Name)
	}
	if d.Hostname == d.Name {
		view.Hostname = ""
	}
	if !label.MatchString(d.Name) {
		view.Target = view.IPv4
	}
	if !domain.MatchString(d.FQDN) {
		view.FQDN = "" // it can be copied, so nothing else will do
	}
	return view
}

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
}

type tab struct {
	Text, Href string
	Here       bool
}

// devices is the list. It is also what live updates and the search field
// fetch: they take #device-list out of the same page.
func (c *Console) devices(v *visit) error {
	q := v.r.URL.Query()
	query := ops.DeviceQuery{Text: strings.ToValidUTF8(cut(strings.TrimSpace(q.Get("q")), 100), ""), Limit: devicesPerPage}
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
		Text: clean(query.Text), State: query.State, Total: list.Total,
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
		view.Tabs = append(view.Tabs, tab{t.text, devicesPath(ops.DeviceQuery{Text: query.Text, State: t.state}), t.state == query.State})
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
	if q.Text != "" {
		u.Set("q", q.Text)
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

type devicePageView struct {
	Device deviceView
	Test   *testView
	// The forms, when they come back with a problem.
	NewName, RenameProblem string
	DeleteProblem          string
	OldName, OldProblem    string
}

func (c *Console) device(v *visit) error {
	id, err := v.nodeID()
	if err != nil {
		return err
	}
	d, err := c.ops.Device(v.ctx(), v.actor, id.String())
	if err != nil {
		return err
	}
	return c.devicePage(v, http.StatusOK, d, devicePageView{})
}

func (c *Console) devicePage(v *visit, status int, d ops.Device, view devicePageView) error {
	view.Device = c.deviceView(d)
	if view.NewName == "" {
		view.NewName = view.Device.Name
	}
	if view.OldName == "" {
		view.OldName = c.namesake(v, d)
	}
	if view.Test == nil {
		view.Test = &testView{Device: view.Device}
	}
	return c.render(v, status, "device", view)
}

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

// confirmReplace shows which device goes and which takes its name.
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

// replaceDevice takes the old device by its id: what was confirmed goes, and
// not what may have got the name since.
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

// testView is one result of a connection test, or the offer to make one.
type testView struct {
	Device  deviceView
	Auto    bool   // run it as soon as it is shown
	Latency string // "" when there is no result
	Relay   string
	Problem string
}

// testDevice measures the way between the relay and the device. The server is
// no member of the overlay, so this is as far as it can see; the page says so.
func (c *Console) testDevice(v *visit) error {
	id, err := v.nodeID()
	if err != nil {
		return err
	}
	d, err := c.ops.Device(v.ctx(), v.actor, id.String())
	if err != nil {
		return err
	}
	view := testView{Device: c.deviceView(d)}
	ctx, cancel := context.WithTimeout(v.ctx(), 5*time.Second)
	defer cancel()
	select {
	case c.testing <- struct{}{}:
		defer func() { <-c.testing }()
	case <-ctx.Done():
		return errBusy
	}
	t, err := c.ops.TestConnection(ctx, v.actor, id)
	switch {
	case err == nil:
		view.Latency, view.Relay = latencyText(t.Latency), clean(t.Relay)
	case errors.Is(err, ops.ErrOffline):
		view.Problem = "It has no connection to a relay at the moment."
		switch {
		case view.Device.Unknown:
			view.Problem = "The server or a relay has just started and has not heard of it yet."
		case d.Online:
			view.Problem = "It did not answer over its relay connection."
		}
	case errors.Is(err, ops.ErrElsewhere):
		view.Problem = "It is connected to the relay " + clean(d.Relay) + ", which only devices can measure: weft ping " + clean(d.Name)
	case errors.Is(err, context.DeadlineExceeded):
		view.Problem = "No answer within 5 seconds."
	default:
		return err
	}
	if v.partial() {
		return c.fragment(v, "device", "test", view)
	}
	return c.devicePage(v, http.StatusOK, d, devicePageView{Test: &view})
}
