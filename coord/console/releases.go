package console

import (
	"maps"
	"net/http"
	"slices"
	"strings"

	"weft/coord/doctor"
	"weft/overlay/release"
	"weft/overlay/report"
)

// releasesView says which versions of weft are in use, and which one the server offers.
type releasesView struct {
	Server  string
	Offered *offeredView // nil: nothing
	Problem string       // why nothing is offered
	InUse   []softwareView
	Devices int
	More    int // versions that are not listed
	Older   int // devices that use another version than the one that is offered
}

type offeredView struct {
	Version, Commit string
	Made            stamp
	Systems         []systemView
}

// systemView is a system that the release has programs for.
type systemView struct{ Name, Kinds string }

type softwareView struct {
	Version string
	Devices string
	Width   int // of its bar, in percent
	Share   string
	Offered bool
}

const maxVersions = 50

func (c *Console) releases(v *visit) error {
	if err := only(v.actor, "network.show"); err != nil {
		return err
	}
	list, err := c.ops.SoftwareInUse(v.ctx(), v.actor)
	if err != nil {
		return err
	}
	view := releasesView{Server: clean(c.ops.Software())}
	offered := ""
	if c.health != nil {
		h := c.health(v.ctx())
		if h.Release != nil {
			offered, view.Offered = h.Release.Version, c.offeredView(h.Release)
		} else if h.Facts.ReleaseErr != nil && v.actor.May("relay.read") {
			for _, f := range releaseFindings(h.Facts) {
				view.Problem = sentence(cleanLong(f.Message)) + " " + sentence(cleanLong(f.Cure))
			}
		}
	}
	for _, s := range list {
		view.Devices += s.Devices
		if offered != "" && s.Version != offered {
			view.Older += s.Devices
		}
	}
	for i, s := range list {
		if i == maxVersions {
			view.More = len(list) - i
			break
		}
		share := s.Devices * 100 / view.Devices
		sv := softwareView{Version: clean(s.Version), Devices: plural(s.Devices, "device"), Width: max(1, share), Share: thousands(share) + " %", Offered: offered != "" && s.Version == offered}
		if sv.Version == "" {
			sv.Version = "not reported"
		}
		if share == 0 {
			sv.Share = "under 1 %"
		}
		view.InUse = append(view.InUse, sv)
	}
	return c.render(v, http.StatusOK, "releases", view)
}

// offeredView is the release that the server hands out.
func (c *Console) offeredView(m *release.Manifest) *offeredView {
	o := &offeredView{Version: clean(m.Version), Commit: clean(cut(m.Commit, 12)), Made: c.stamp(m.Time)}
	kinds := map[string][]string{}
	for _, f := range m.Files {
		if f.Program != "weft" || f.OS == "" {
			continue
		}
		system, kind := osText(f.OS+"/"+f.Arch), f.Kind
		if kind == "binary" {
			kind = "program"
		}
		if !slices.Contains(kinds[system], kind) {
			kinds[system] = append(kinds[system], kind)
		}
	}
	for _, system := range slices.Sorted(maps.Keys(kinds)) {
		slices.Sort(kinds[system])
		o.Systems = append(o.Systems, systemView{system, strings.Join(cleanAll(kinds[system]), ", ")})
	}
	return o
}

// releaseFindings is what the doctor says of the release alone.
func releaseFindings(f doctor.Facts) report.Findings {
	return slices.DeleteFunc(doctor.Diagnose(f), func(f report.Finding) bool { return f.Code != "release" })
}
