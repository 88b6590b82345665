package console

import (
	"net/http"
	"strconv"
	"time"

	"weft/coord/ops"
	"weft/overlay/age"
)

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
	SignIn     *againView
}

// againView is when the owner has to sign a device in again.
type againView struct {
	Due           stamp
	Soon, Overdue bool
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
		Expired:   d.Attention == ops.NeedExpired,
		Overdue:   d.Attention == ops.NeedRenewal,
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
	if in := d.SignIn; in != nil {
		view.SignIn = &againView{c.stamp(in.Due), in.Soon, in.Overdue}
	}
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

// devicePage is the page of one device: its head, and what one of its tabs shows.
type devicePage struct {
	Device    deviceView
	Tab       string // "", "activity" or "settings"
	Self      string // its own address
	Tabs      tabsView
	MayChange bool
	Answer    bool // to a form that changed nothing: it is left alone
	// Of the tab that is shown; the others are nil.
	Overview *overviewView
	Activity *deviceActs
	Settings *settingsView
}

// deviceHere is the device that the address names, if the actor may see it.
func (v *visit) deviceHere() (ops.Device, error) {
	id, err := v.nodeID()
	if err != nil {
		return ops.Device{}, err
	}
	return v.ops.Device(v.ctx(), v.actor, id.String())
}

// devicePage draws the page of a device; page has the content of a tab.
func (c *Console) devicePage(v *visit, status int, d ops.Device, page devicePage) error {
	page.Device, page.MayChange, page.Answer = c.deviceView(d), v.actor.MaySome("device.rename"), status != http.StatusOK
	tabs := []struct{ text, at string }{{"Overview", ""}, {"Activity", "activity"}, {"Settings", "settings"}}
	page.Self = page.Device.Path
	if page.Tab != "" {
		page.Self += "/" + page.Tab
	}
	for _, part := range []string{"before", "reach"} { // of a list: what follows changes shows the same
		if n, err := strconv.ParseUint(v.r.URL.Query().Get(part), 10, 62); err == nil {
			page.Self += "?" + part + "=" + strconv.FormatUint(n, 10)
			break
		}
	}
	page.Tabs.Name, page.Tabs.Of = "About "+page.Device.Name, page.Device.Name // the console has Activity and Settings of its own
	for _, t := range tabs {
		if t.at == "activity" && !v.actor.ReadsAudit() {
			continue
		}
		href := page.Device.Path
		if t.at != "" {
			href += "/" + t.at
		}
		page.Tabs.List = append(page.Tabs.List, tab{t.text, href, t.at == page.Tab})
	}
	return c.render(v, status, "device", page)
}
