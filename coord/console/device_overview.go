package console

import (
	"net/http"
	"time"

	"weft/coord/ops"
)

// The tab Overview of a device: what the server knows of how it is reached. The path
// between two devices is theirs; the server is not told.

type overviewView struct {
	Line           *latencyView // nil: the server cannot measure
	Since          stamp        // it is connected, or offline
	Sent, Received string       // through its relay connection; "" for unknown
	Reads          bool         // may read what devices report
	Reports        []claimView
	Causes         []causeView // while it is offline
	Reach          reachView   // who reaches it
}

// causeView is a likely reason why a device is offline: what is so, and what to do.
type causeView struct{ What, Check string }

func (c *Console) device(v *visit) error {
	d, err := v.deviceHere()
	if err != nil {
		return err
	}
	return c.overviewPage(v, d, nil)
}

// overviewPage draws the tab, with a line of round trips if there is one already.
func (c *Console) overviewPage(v *visit, d ops.Device, line *latencyView) error {
	o, err := c.ops.Outlook(v.ctx(), v.actor, d.ID)
	if err != nil {
		return err
	}
	dv := c.deviceView(d)
	view := overviewView{Line: line, Since: c.stamp(o.Since), Reads: v.actor.ReadsAudit()}
	if view.Line == nil && d.Online && o.Here {
		view.Line = newLatency(dv, nil)
	}
	if o.Traffic != nil {
		view.Sent, view.Received = bytesText(o.Traffic.Sent), bytesText(o.Traffic.Received)
	}
	for _, r := range o.Reports {
		view.Reports = append(view.Reports, c.claimView(r))
	}
	for _, cause := range o.Causes {
		view.Causes = append(view.Causes, c.causeView(cause, dv))
	}
	if view.Reach, err = c.reach(v, ops.ReachQuery{To: d.ID.String()}, dv.Path); err != nil {
		return err
	}
	return c.devicePage(v, http.StatusOK, d, devicePage{Overview: &view})
}

// causeView puts a cause into words.
func (c *Console) causeView(o ops.Cause, d deviceView) causeView {
	others := plural(o.Count, "other device")
	at := func(t time.Time) string { return shortTime(t, c.now()) }
	switch o.Kind {
	case ops.CauseNever:
		return causeView{"It has joined, and was never connected since.", "Start weft on it (weft run, or its service), then look at what weft status says there."}
	case ops.CauseRelay:
		what := "Its relay " + clean(o.Name) + " was not heard of since this server started."
		if !o.At.IsZero() {
			what = "Its relay " + clean(o.Name) + " was last heard of " + at(o.At) + "."
		}
		return causeView{what, "Look after that relay. A device goes to another relay by itself, if it reaches one."}
	case ops.CauseSite:
		return causeView{others + " at its address went offline at about the same time, and none is back.", "Check the power and the Internet connection of that place."}
	case ops.CauseAlone:
		is := " are"
		if o.Count == 1 {
			is = " is"
		}
		return causeView{others + " at its address" + is + " online, so the Internet connection there works.", "Check the device itself: power, network cable or Wi-Fi, and whether weft runs."}
	case ops.CauseCertificate:
		return causeView{"Its certificate ended " + at(o.At) + ".", "It gets a new one by itself as soon as it reaches the server. Until then no other device accepts it."}
	case ops.CauseClock:
		return causeView{"It reported times that cannot be right.", "Check its clock: weft works with a wrong one, but other programs and their certificates may not."}
	case ops.CauseVersion:
		return causeView{"It ran weft " + d.Software + " when it joined or last renewed its certificate; the server runs " + clean(o.Name) + ".", "Both work together. Update it when it is back."}
	}
	return causeView{"The reason is not known.", "Check its power and its network, and whether weft runs: weft status and weft doctor on the device."}
}
