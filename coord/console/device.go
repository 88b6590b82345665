package console

import (
	"net/http"
	"strings"
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
}

// silentAfter is the silence of a device from which on the pages say how long it was.
// It was asked when the page was made, and answers in less.
const silentAfter = 10 * time.Second

// overdue reports whether the renewal of a certificate has failed for a while: it
// is renewed with a third of its life left, and has 7/30 left, 21 days of 90.
func overdue(d ops.Device, now time.Time) bool {
	return d.Issued != nil && d.Expires.Sub(now) < d.Expires.Sub(*d.Issued)*7/30
}

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

type devicePageView struct {
	Device deviceView
	Test   *testView
	// The forms, when they come back with a problem.
	NewName, RenameProblem string
	DeleteProblem          string
	OldName, OldProblem    string
	// The form for tags and the owner. Match is the revision that is shown.
	MayAssign, MayHandOver bool
	NewTags, NewOwner      string
	AssignProblem, Match   string

	Reach reachView // who reaches it
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
	if view.AssignProblem == "" {
		view.NewTags, view.NewOwner = strings.Join(view.Device.Tags, " "), view.Device.Owner
	}
	view.Match = d.Revision
	view.MayAssign, view.MayHandOver = mayAssign(v.actor)
	var err error
	if view.Reach, err = c.reach(v, ops.ReachQuery{To: d.ID.String()}, view.Device.Path); err != nil {
		return err
	}
	if view.Test == nil {
		view.Test = &testView{Device: view.Device}
	}
	return c.render(v, status, "device", view)
}
