// Package doctor finds what is wrong with a server, why, and which command fixes it. Like
// overlay/doctor it is pure: the caller collects the facts.
package doctor

import (
	"errors"
	"io/fs"
	"strings"
	"time"

	"weft/overlay/age"
	"weft/overlay/fips"
	"weft/overlay/report"
)

// Facts are the input of Diagnose. A fact that could not be determined is zero.
type Facts struct {
	Now     time.Time
	Built   time.Time // when this program was built; a clock that shows an earlier time is wrong
	Version string
	Running bool
	// Inside says that the running server collected the facts itself: it does not ask for
	// its own addresses, nor check its database.
	Inside bool
	// AdminErr is why the running server does not answer, or why the data directory cannot be
	// opened if no server runs.
	AdminErr error
	Data     string // directory
	Free     int64  // bytes that can be written there, -1 if unknown
	Database error  // what the check of the database found
	Backup   time.Time
	Devices  int
	List     List
	FIPS     fips.Status
	Misnamed []string // devices with names that were reserved only after the devices had joined

	Ports    []Port
	Sites    []Site
	Relays   []Relay
	Webhooks []Webhook
	Releases string // directory
	// Release is the version of the release that devices get, ReleaseErr why there is none.
	Release    string
	ReleaseErr error
}

// List is the revocation list.
type List struct {
	Bytes, Max int // Max is 0 if the list is not known
	Entries    int
	Left       int // revoked certificates for which it has no room
}

// Port is a port on which the server listens, or has to listen.
type Port struct {
	Flag string // such as --listen
	Addr string
	Err  error // why the port does not answer, or, if no server runs, why it cannot be listened on
}

// Site is one of the URLs by which devices reach the server, at one of the
// addresses of its host.
type Site struct {
	URL     string
	Addr    string // "" if the host has only one address, or none
	Lookup  error  // why the host was not found
	Err     error  // why no weft server answers there
	Own     bool   // the certificate was made by this server
	Trusted bool   // browsers trust the certificate
	Expires time.Time
}

// Relay is a relay on a machine of its own.
type Relay struct {
	Name   string
	Online bool
	Heard  time.Time // zero: not since the server started
}

// Webhook is an enabled webhook.
type Webhook struct {
	ID      string
	To      string    // the URL without parts that may be secret
	Failing time.Time // since when its events fail; zero if they do not
	Paused  bool      // events are not sent any more
	Error   string
	Missed  uint64    // events that were never sent
	Lost    time.Time // when the last of them was given up
}

const (
	freeError    = 50 << 20 // bytes; a busy network writes as much in a day
	freeWarning  = 500 << 20
	expiresSoon  = 21 * 24 * time.Hour // a certificate is normally renewed 30 days before its end
	expiresNow   = 24 * time.Hour
	weekLeft     = 7 * 24 * time.Hour
	backupStale  = 7 * 24 * time.Hour
	worthABackup = 2                  // devices, from which on a missing backup is a warning
	webhookFails = 15 * time.Minute   // of failures, after which a webhook is a warning
	webhookLost  = 7 * 24 * time.Hour // for which lost events are a warning
)

type adder func(code string, level report.Level, cure, format string, args ...any)

// Diagnose returns a finding for everything that was checked, also for what is in order, the
// worst first.
func Diagnose(f Facts) report.Findings {
	var out report.Findings
	add := out.Add
	checkServer(f, add)
	checkFIPS(f.FIPS, add)
	checkPorts(f, add)
	checkSites(f, add)
	checkData(f, add)
	checkList(f.List, add)
	checkRelays(f, add)
	checkWebhooks(f, add)
	checkNames(f, add)
	checkRelease(f, add)
	out.Sort()
	return out
}

func checkServer(f Facts, add adder) {
	switch {
	case f.Running && f.AdminErr != nil:
		add("server", report.Error, "systemctl restart weft-server; journalctl -u weft-server -e", "the server runs but does not answer: %v", f.AdminErr)
	case f.Running:
		add("server", report.OK, "", "the server runs, devices: %d", f.Devices)
	case f.AdminErr != nil:
		add("server", report.Error, "weft-server install --url https://HOST:8443, or name the directory: --data DIR", "the server does not run, and %s cannot be opened: %v", f.Data, f.AdminErr)
	default:
		add("server", report.Error, "systemctl start weft-server, or: weft-server serve --data "+f.Data, "the server does not run")
	}
	if !f.Built.IsZero() && f.Now.Before(f.Built) {
		add("clock", report.Error, "timedatectl set-ntp true", "the clock says %s, which is before this program was built: certificates will not verify", f.Now.UTC().Format(time.DateTime))
	}
}

func checkFIPS(s fips.Status, add adder) {
	if s.Mode == fips.On || s.Mode == fips.Only {
		add("fips", report.OK, "", "FIPS mode is %s, Go Cryptographic Module %s; more: weft-server doctor --fips", s.Mode.Word(), s.Module)
	}
}

func checkPorts(f Facts, add adder) {
	for _, p := range f.Ports {
		switch {
		case p.Err == nil && f.Running:
			add("port", report.OK, "", "%s %s answers", p.Flag, p.Addr)
		case p.Err == nil:
			add("port", report.OK, "", "%s %s is free", p.Flag, p.Addr)
		case f.Running:
			add("port", report.Error, "journalctl -u weft-server -e; see who has it: ss -lntup", "%s %s does not answer: %v", p.Flag, p.Addr, p.Err)
		default:
			add("port", report.Error, "ss -lntup shows who has it; or choose another: "+p.Flag+" ADDR:PORT", "%s %s cannot be listened on: %v", p.Flag, p.Addr, p.Err)
		}
	}
}

func checkSites(f Facts, add adder) {
	for _, s := range f.Sites {
		left := s.Expires.Sub(f.Now)
		site, there := s.URL, s.URL+"/healthz"
		if s.Addr != "" {
			site += " at " + s.Addr
			there += " --connect-to '::[" + s.Addr + "]:'"
		}
		switch {
		case s.Lookup != nil:
			add("dns", report.Error, "make a DNS record for it, or give an address that exists: --url", "the host of %s is not found: %v", s.URL, s.Lookup)
		case s.Err != nil:
			add("url", report.Warning, "from another machine: curl -kI "+there+"; open the port in the firewall or forward it on the router", "%s is not reached from here, which may be the router's fault: %v", site, s.Err)
		case !s.Own && !s.Trusted:
			add("url", report.Error, "see who answers there: curl -kvI "+there, "somebody else answers at %s, with a certificate that is neither this server's nor one that browsers trust", site)
		case !s.Expires.IsZero() && left <= 0:
			add("certificate", report.Error, "systemctl restart weft-server, or renew it on the reverse proxy", "the certificate of %s ended %s", site, age.Ago(-left))
		case !s.Expires.IsZero() && left < expiresNow:
			add("certificate", report.Error, "systemctl restart weft-server, or renew it on the reverse proxy", "the certificate of %s ends in %d hours: then browsers will refuse the console, while devices keep working", site, int(left.Hours()))
		case !s.Expires.IsZero() && left < weekLeft:
			add("certificate", report.Warning, "journalctl -u weft-server -g certificate says why; then systemctl restart weft-server, or renew it on the reverse proxy", "the certificate of %s ends in %d days, and its renewal has failed", site, int(left.Hours()/24))
		case !s.Expires.IsZero() && left < expiresSoon:
			add("certificate", report.Warning, "systemctl restart weft-server, or renew it on the reverse proxy", "the certificate of %s ends in %d days", site, int(left.Hours()/24))
		case f.Inside && !s.Trusted:
			add("certificate", report.OK, "", "the certificate of %s was made by this server and is good for %d days: browsers ask whether to trust it", site, int(left.Hours()/24))
		case f.Inside:
			add("certificate", report.OK, "", "the certificate of %s is good for %d days", site, int(left.Hours()/24))
		default:
			add("url", report.OK, "", "%s answers, its certificate is good for %d days", site, int(left.Hours()/24))
		}
	}
}

func checkData(f Facts, add adder) {
	switch {
	case f.Free < 0:
	case f.Free < freeError:
		add("disk", report.Error, "df -h "+f.Data+"; make room", "only %d MB are free for %s: once the disk is full nothing can be changed, while devices keep working", (f.Free+500_000)/1_000_000, f.Data)
	case f.Free < freeWarning:
		add("disk", report.Warning, "df -h "+f.Data+"; make room", "%d MB are free for %s", (f.Free+500_000)/1_000_000, f.Data)
	default:
		add("disk", report.OK, "", "%d MB are free for %s", (f.Free+500_000)/1_000_000, f.Data)
	}
	switch {
	case errors.Is(f.Database, fs.ErrNotExist):
	case f.Inside:
	case f.Database != nil:
		add("database", report.Error, "stop the server, keep "+f.Data+" aside, then: weft-server restore", "the database is damaged: %v", f.Database)
	default:
		add("database", report.OK, "", "the database is whole")
	}
	const cure = "weft-server backup --key-file FILE"
	switch {
	case f.Backup.IsZero() && f.Devices >= worthABackup:
		add("backup", report.Warning, cure, "no backup was ever made: if this disk fails, every device has to join again")
	case f.Backup.IsZero():
	case f.Now.Sub(f.Backup) > backupStale:
		add("backup", report.Warning, cure, "the last backup is %d days old", int(f.Now.Sub(f.Backup).Hours()/24))
	default:
		add("backup", report.OK, "", "the last backup is of %s", f.Backup.UTC().Format(time.DateTime))
	}
}

func checkList(l List, add adder) {
	const cure = "weft-server keys list shows which tokens made many devices; make those for devices that come and go with: weft-server keys create --reusable --ephemeral"
	switch {
	case l.Max == 0:
	case l.Left > 0:
		add("revocations", report.Error, "delete no more devices than you must until the list has shrunk; "+cure, "the revocation list is full: it has no room for %d certificates of deleted devices; relays refuse these devices only while the relays reach the server", l.Left)
	case l.Bytes >= l.Max/8*7:
		add("revocations", report.Error, cure, "the revocation list is %d %% full: no device can join until certificates of deleted devices have ended", l.Bytes*100/l.Max)
	case l.Bytes >= l.Max/2:
		add("revocations", report.Warning, cure, "the revocation list is %d %% full: new certificates are valid for a shorter time until it has shrunk", l.Bytes*100/l.Max)
	default:
		add("revocations", report.OK, "", "the revocation list has %d certificates and is %d %% full", l.Entries, l.Bytes*100/l.Max)
	}
}

func checkRelays(f Facts, add adder) {
	for _, r := range f.Relays {
		switch {
		case r.Online:
			add("relay", report.OK, "", "the relay %s is online", r.Name)
		case r.Heard.IsZero():
			add("relay", report.Warning, "on the relay's machine: journalctl -u weft-relay -e; or remove the relay: weft-server relays remove "+r.Name, "the relay %s has not been heard of since the server started", r.Name)
		default:
			add("relay", report.Warning, "on the relay's machine: journalctl -u weft-relay -e; or remove the relay: weft-server relays remove "+r.Name, "the relay %s was last heard of %s", r.Name, age.Ago(f.Now.Sub(r.Heard)))
		}
	}
}

// checkWebhooks finds webhooks whose events do not arrive. A failure of some minutes is no
// warning, because the receiver may be restarting.
func checkWebhooks(f Facts, add adder) {
	for _, w := range f.Webhooks {
		failing := f.Now.Sub(w.Failing)
		switch {
		case w.Paused:
			add("webhook", report.Warning, "see why: weft-server webhooks test "+w.ID+"; then send events again: weft-server webhooks edit "+w.ID+" --enable", "the webhook %s to %s is paused, because it failed for a day: %s", w.ID, w.To, w.Error)
		case !w.Failing.IsZero() && failing >= webhookFails:
			add("webhook", report.Warning, "weft-server webhooks show "+w.ID, "the webhook %s to %s has failed since %s and is tried again: %s", w.ID, w.To, w.Failing.UTC().Format(time.DateTime), w.Error)
		case w.Missed > 0 && f.Now.Sub(w.Lost) < webhookLost:
			add("webhook", report.Warning, "weft-server webhooks show "+w.ID, "up to %d events for the webhook %s to %s were never sent, because they became too old or their records were removed; the last one %s", w.Missed, w.ID, w.To, age.Ago(f.Now.Sub(w.Lost)))
		case !w.Failing.IsZero():
			add("webhook", report.OK, "", "the webhook %s to %s has failed since %s and is tried again: %s", w.ID, w.To, w.Failing.UTC().Format(time.DateTime), w.Error)
		default:
			add("webhook", report.OK, "", "the webhook %s to %s works", w.ID, w.To)
		}
	}
}

// checkNames finds devices with reserved names, which they got before the names were reserved.
func checkNames(f Facts, add adder) {
	for _, name := range f.Misnamed {
		add("name", report.Warning, "weft-server devices rename "+name+" NEW", "programs look up the name %s on their own and would trust the device that has it: DNS does not answer it", name)
	}
}

func checkRelease(f Facts, add adder) {
	switch {
	case f.ReleaseErr == nil && f.Release != "":
		add("release", report.OK, "", "weft %s is handed out to devices", f.Release)
	case errors.Is(f.ReleaseErr, fs.ErrNotExist):
		add("release", report.Warning, "scripts/release --key FILE, and copy releases/ to "+f.Releases, "there is no release in %s: the console cannot show a command that installs weft", f.Releases)
	case f.ReleaseErr != nil:
		add("release", report.Error, "scripts/release --key FILE, and copy all of releases/ to "+f.Releases, "the release is not handed out: %s", strings.TrimSuffix(f.ReleaseErr.Error(), "; run scripts/release again"))
	}
}
