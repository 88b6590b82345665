package doctor

import (
	"errors"
	"io/fs"
	"strings"
	"testing"
	"time"

	"weft/overlay/report"
)

func healthy() Facts {
	now := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	return Facts{
		Now: now, Built: now.AddDate(0, -1, 0), Running: true, Data: "/data", Free: 10 << 30, Devices: 3, Backup: now.Add(-time.Hour),
		List:     List{Bytes: 100_000, Max: 1 << 20, Entries: 3500},
		Ports:    []Port{{"--listen", ":8443", nil}},
		Sites:    []Site{{URL: "https://h:8443", Own: true, Expires: now.AddDate(1, 0, 0)}},
		Relays:   []Relay{{Name: "frankfurt", Online: true}},
		Webhooks: []Webhook{{ID: "w1", To: "https://hook.example", Failing: now.Add(-time.Minute), Error: "it answered 503"}, {ID: "w2", To: "https://hook.example", Missed: 3, Lost: now.AddDate(0, -1, 0)}},
		Releases: "/data/releases", Release: "1.0.0",
	}
}

func TestHealthy(t *testing.T) {
	for _, f := range Diagnose(healthy()) {
		if f.Level != report.OK || f.Cure != "" {
			t.Errorf("%+v", f)
		}
	}
}

// Each case is one thing that is wrong: the finding comes first, names the
// cause and a command.
func TestFindings(t *testing.T) {
	broken := errors.New("broken")
	for _, c := range []struct {
		name  string
		spoil func(*Facts)
		code  string
		level report.Level
		want  string
		cure  string
	}{
		{"does not run", func(f *Facts) { f.Running = false }, "server", report.Error, "does not run", "systemctl start"},
		{"does not answer", func(f *Facts) { f.AdminErr = broken }, "server", report.Error, "does not answer: broken", "journalctl"},
		{"no data", func(f *Facts) { f.Running, f.AdminErr = false, broken }, "server", report.Error, "cannot be opened", "install"},
		{"clock", func(f *Facts) { f.Now = time.Unix(0, 0); f.Sites[0].Expires = f.Now.AddDate(1, 0, 0); f.Backup = f.Now }, "clock", report.Error, "1970", "timedatectl"},
		{"silent port", func(f *Facts) { f.Ports[0].Err = broken }, "port", report.Error, "--listen :8443 does not answer", "ss -lntup"},
		{"host unknown", func(f *Facts) { f.Sites[0].Lookup = broken }, "dns", report.Error, "not found", "--url"},
		{"not reached", func(f *Facts) { f.Sites[0].Err = broken }, "url", report.Warning, "not reached from here", "curl"},
		{"somebody else", func(f *Facts) { f.Sites[0].Own = false }, "url", report.Error, "somebody else", "curl"},
		{"ended", func(f *Facts) { f.Sites[0].Expires = f.Now.AddDate(0, 0, -3) }, "certificate", report.Error, "3 days ago", "restart"},
		{"ends in 20 days", func(f *Facts) { f.Sites[0].Expires = f.Now.AddDate(0, 0, 20) }, "certificate", report.Warning, "in 20 days", "restart"},
		{"ends in 3 days", func(f *Facts) { f.Sites[0].Expires = f.Now.AddDate(0, 0, 3) }, "certificate", report.Warning, "in 3 days, and its renewal has failed", "journalctl"},
		{"ends today", func(f *Facts) { f.Sites[0].Expires = f.Now.Add(5 * time.Hour) }, "certificate", report.Error, "in 5 hours", "restart"},
		{"one address of two", func(f *Facts) {
			old := f.Sites[0]
			f.Sites[0].Addr, old.Addr, old.Expires = "192.0.2.1", "2001:db8::1", f.Now.AddDate(0, 0, -3)
			f.Sites = append(f.Sites, old)
		}, "certificate", report.Error, "of https://h:8443 at 2001:db8::1 ended 3 days ago", "restart"},
		{"one address is silent", func(f *Facts) { f.Sites[0].Addr, f.Sites[0].Err = "2001:db8::1", broken }, "url", report.Warning, "https://h:8443 at 2001:db8::1 is not reached", "--connect-to '::[2001:db8::1]:'"},
		{"paused webhook", func(f *Facts) { f.Webhooks[0].Paused = true }, "webhook", report.Warning, "the webhook w1 to https://hook.example is paused, because it failed for a day: it answered 503", "edit w1 --enable"},
		{"failing webhook", func(f *Facts) { f.Webhooks[0].Failing = f.Now.Add(-time.Hour) }, "webhook", report.Warning, "failed since 2026-05-01 11:00:00 and is tried again", "show w1"},
		{"missed events", func(f *Facts) { f.Webhooks[1].Lost = f.Now.AddDate(0, 0, -2) }, "webhook", report.Warning, "up to 3 events for the webhook w2", "show w2"},
		{"name", func(f *Facts) { f.Misnamed = []string{"wpad"} }, "name", report.Warning, "look up the name wpad", "rename wpad NEW"},
		{"full", func(f *Facts) { f.Free = 1 << 20 }, "disk", report.Error, "only 1 MB", "df -h"},
		{"filling", func(f *Facts) { f.Free = 100_000_000 }, "disk", report.Warning, "100 MB", "df -h"},
		{"damaged", func(f *Facts) { f.Database = broken }, "database", report.Error, "damaged", "restore"},
		{"no backup", func(f *Facts) { f.Backup = time.Time{} }, "backup", report.Warning, "no backup was ever made", "backup --key-file"},
		{"old backup", func(f *Facts) { f.Backup = f.Now.AddDate(0, 0, -9) }, "backup", report.Warning, "9 days", "backup --key-file"},
		{"list half full", func(f *Facts) { f.List.Bytes = 600_000 }, "revocations", report.Warning, "57 % full: new certificates are valid for a shorter time", "--ephemeral"},
		{"list nearly full", func(f *Facts) { f.List.Bytes = 1_000_000 }, "revocations", report.Error, "95 % full: no device can join", "--ephemeral"},
		{"list full", func(f *Facts) { f.List.Bytes, f.List.Left = 1_000_000, 7 }, "revocations", report.Error, "no room for 7 certificates of deleted devices", "delete no more"},
		{"relay away", func(f *Facts) { f.Relays[0] = Relay{Name: "r", Heard: f.Now.Add(-time.Hour)} }, "relay", report.Warning, "60 min ago", "relays remove r"},
		{"relay never seen", func(f *Facts) { f.Relays[0] = Relay{Name: "r"} }, "relay", report.Warning, "since the server started", "relays remove r"},
		{"no release", func(f *Facts) { f.Release, f.ReleaseErr = "", fs.ErrNotExist }, "release", report.Warning, "no release", "scripts/release"},
		{"forged release", func(f *Facts) { f.Release, f.ReleaseErr = "", broken }, "release", report.Error, "not handed out", "scripts/release"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := healthy()
			c.spoil(&f)
			got := Diagnose(f)[0]
			if got.Code != c.code || got.Level != c.level || !strings.Contains(got.Message, c.want) || !strings.Contains(got.Cure, c.cure) || strings.Contains(got.Message, "\n") {
				t.Errorf("%+v", got)
			}
		})
	}
	f := healthy()
	f.Webhooks[0].Failing = f.Now.Add(-time.Minute)
	for _, got := range Diagnose(f) {
		if got.Code == "webhook" && strings.Contains(got.Message, "w1") && (got.Level != report.OK || !strings.Contains(got.Message, "failed since") || strings.Contains(got.Message, "works")) {
			t.Errorf("it has failed for a minute: %+v", got)
		}
	}
	f = healthy()
	f.Running, f.Ports[0].Err = false, broken
	if got := Diagnose(f)[1]; got.Code != "port" || !strings.Contains(got.Message, "cannot be listened on") {
		t.Errorf("%+v", got)
	}

	// A server that looks at itself says nothing of what it has not asked for.
	f = healthy()
	f.Inside = true
	for _, got := range Diagnose(f) {
		if got.Code == "url" || got.Code == "database" {
			t.Errorf("%+v", got)
		}
	}
	f.Sites[0].Expires = f.Now.Add(time.Hour)
	if got := Diagnose(f)[0]; got.Code != "certificate" || got.Level != report.Error {
		t.Errorf("%+v", got)
	}
}
