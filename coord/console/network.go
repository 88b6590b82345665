package console

import (
	"net/http"
	"slices"
	"strings"
	"time"

	"weft/coord/doctor"
	"weft/coord/ops"
	"weft/overlay/report"
)

// relayView is a relay as the pages show it.
type relayView struct {
	ID, Name, Path string
	Builtin        bool
	Online         bool
	URLs, STUN     []string
	Clients        string
	Share          string     // of the devices that are online, "" without any
	Rate           string     // what it sends on, "" if it does not say
	Spark          *sparkView // the same over the last hour
	Version        string
	Differs        bool // from the server's version
	Joined, Heard  stamp
	Key            string // that it joined with, "" for none
}

// finding is what a check found.
type finding struct {
	Title, Text, Cure string
	Bad               bool // it does not work, and not only soon
}

// networkView is the overview.
type networkView struct {
	Relays  []relayView
	Change  bool // may remove relays
	Wrong   []finding
	Fine    []finding
	Checked bool
	Facts   *serverFacts
	Backup  *backupView
	URLs    []string
	Unaware string // how many devices do not know all of URLs, "" for none
	Devices string
}

// serverFacts are about the machine and the process.
type serverFacts struct {
	Version                 string
	Started                 stamp
	Listen                  []listenView
	Certificate             stamp // its end
	CertificateBy           string
	Database, Free, Release string
}

type listenView struct{ What, Addr string }

type backupView struct {
	Last  stamp
	Old   bool // or there is none, and devices that would be lost
	Never bool
}

// backupStale is how old the last backup may be.
const backupStale = 7 * 24 * time.Hour

func (c *Console) network(v *visit) error {
	relays, err := c.ops.RelayList(v.actor)
	if err != nil {
		return hide(err)
	}
	devices, err := c.ops.Devices(ops.Passive(v.ctx()), v.actor, ops.DeviceQuery{Limit: 1})
	if err != nil {
		return err
	}
	view := networkView{Change: v.actor.May("relay.remove"), URLs: cleanAll(c.ops.Network().URLs), Devices: thousands(devices.All)}
	if devices.Unaware > 0 {
		view.Unaware = thousands(devices.Unaware)
	}
	for _, r := range relays {
		view.Relays = append(view.Relays, c.relayView(r, devices.Online))
	}
	if c.health != nil {
		h := c.health(v.ctx())
		view.Facts, view.Backup = c.serverFacts(h), c.backupView(h.Facts, devices.All)
		view.Wrong, view.Fine, err = c.findings(v, h.Facts, relays, devices.All)
		if err != nil {
			return err
		}
		view.Checked = true
	}
	return c.render(v, http.StatusOK, "network", view)
}

func (c *Console) relayView(r ops.RelayInfo, online int) relayView {
	view := relayView{
		ID: clean(r.ID), Name: clean(r.Name), Builtin: r.Builtin, Online: r.Online, URLs: cleanAll(r.URLs), STUN: cleanAll(r.STUN),
		Clients: thousands(r.Clients), Version: clean(r.Version), Differs: r.Version != c.ops.Software(), Joined: c.stamp(r.Joined), Heard: c.stamp(orZero(r.Heard)), Key: clean(r.Key),
	}
	if idPattern.MatchString(r.ID) {
		view.Path = "/network/relays/" + r.ID
	}
	if online > 0 {
		view.Share = thousands(min(100, r.Clients*100/online)) + " %"
	}
	if l := c.ops.RelayLoad(r.ID); l != nil {
		view.Rate = bytesText(uint64(l.BytesPerSecond)) + "/s"
		minutes := make([]float64, len(l.Minutes))
		for i, n := range l.Minutes {
			minutes[i] = float64(n)
		}
		if len(minutes) < 2 {
			return view // no line yet
		}
		line := spark("Sent on in each minute of the last hour", minutes, func(f float64) string { return bytesText(uint64(f)) })
		view.Spark = &line
	}
	return view
}

func (c *Console) serverFacts(h Health) *serverFacts {
	f := &serverFacts{Version: clean(h.Facts.Version), Started: c.stamp(c.ops.Started()), Database: bytesText(uint64(h.Database)), Release: clean(h.Facts.Release)}
	if h.Facts.Free >= 0 {
		f.Free = bytesText(uint64(h.Facts.Free))
	}
	for _, p := range h.Facts.Ports {
		f.Listen = append(f.Listen, listenView{portNames[p.Flag], clean(p.Addr)})
	}
	if len(h.Facts.Sites) > 0 { // the first address is the one that is shown
		s := h.Facts.Sites[0]
		if f.Certificate = c.stamp(s.Expires); s.Trusted {
			f.CertificateBy = "browsers trust it"
		} else {
			f.CertificateBy = "of this server’s own making: browsers ask whether to trust it"
		}
	}
	return f
}

var portNames = map[string]string{"--listen": "devices, relay and console (TLS)", "--console": "console for this machine and a reverse proxy", "--stun": "STUN and relayed UDP"}

func (c *Console) backupView(f doctor.Facts, devices int) *backupView {
	b := &backupView{Last: c.stamp(f.Backup), Never: f.Backup.IsZero()}
	b.Old = b.Never && devices > 1 || !b.Never && c.now().Sub(f.Backup) > backupStale
	return b
}

// findings has the doctor look at everything that this process knows: first what is
// wrong.
func (c *Console) findings(v *visit, f doctor.Facts, relays []ops.RelayInfo, devices int) (wrong, fine []finding, err error) {
	f.Now, f.Devices = c.now(), devices
	f.Relays, _ = doctor.OfRelays(relays)
	list, err := c.ops.ShowRevocations(v.actor)
	if err != nil {
		return nil, nil, err
	}
	f.List = doctor.List(list)
	if hooks, err := c.ops.Webhooks(v.ctx(), v.actor); err == nil { // who may not see them hears nothing of them
		f.Webhooks = doctor.OfWebhooks(hooks)
	}
	for _, found := range doctor.Diagnose(f) {
		one := finding{Title: findingTitles[found.Code], Text: sentence(cleanLong(found.Message)), Cure: cleanLong(found.Cure), Bad: found.Level == report.Error}
		switch {
		case found.Code == "backup": // has a card of its own
		case found.Level == report.OK:
			fine = append(fine, one)
		default:
			wrong = append(wrong, one)
		}
	}
	return wrong, fine, nil
}

var findingTitles = map[string]string{
	"server": "Server", "clock": "Clock", "port": "Listening", "url": "Address", "certificate": "Certificate", "dns": "DNS", "disk": "Disk", "database": "Database",
	"revocations": "Revocation list", "relay": "Relay", "webhook": "Webhook", "name": "Device name", "release": "Release", "fips": "FIPS mode",
}

// sentence is a text that begins with a capital letter and ends with a full stop.
func sentence(s string) string {
	if s == "" {
		return ""
	}
	s = strings.TrimSuffix(s, ".") + "."
	if r := []rune(s); !strings.HasPrefix(s, "weft") { // which is written so
		return strings.ToUpper(string(r[:1])) + string(r[1:])
	}
	return s
}

// relayPageView is the page of one relay.
type relayPageView struct {
	Relay   relayView
	Change  bool
	Problem string // with removing it
}

func (c *Console) relay(v *visit) error { return c.relayPage(v, http.StatusOK, "") }

func (c *Console) relayPage(v *visit, status int, problem string) error {
	relays, err := c.ops.RelayList(v.actor)
	if err != nil {
		return hide(err)
	}
	i := slices.IndexFunc(relays, func(r ops.RelayInfo) bool { return r.ID == v.r.PathValue("id") })
	if i < 0 {
		return ops.ErrNotFound
	}
	_, online := c.ops.CountDevices()
	view := relayPageView{Relay: c.relayView(relays[i], online), Change: v.actor.May("relay.remove"), Problem: problem}
	return c.render(v, status, "relay", view)
}

// removeRelay wants the relay's name typed.
func (c *Console) removeRelay(v *visit) error {
	id, err := v.pathID()
	if err != nil {
		return err
	}
	if !v.actor.May("relay.remove") {
		return ops.ErrForbidden
	}
	for _, r := range c.ops.Relays() {
		if r.ID != id {
			continue
		}
		if strings.TrimSpace(v.r.PostForm.Get("typed")) != clean(r.Name) {
			return c.relayPage(v, http.StatusUnprocessableEntity, "That is not the name. Nothing was removed.")
		}
		if _, err := ops.Do(v.ctx(), c.ops, v.actor, ops.RemoveRelay{Name: id}); err != nil {
			return err
		}
		return v.redirect("/network?done=norelay")
	}
	return ops.ErrNotFound
}
