package coord

import (
	"testing"
	"time"

	"weft/coord/doctor"
	"weft/coord/ops"
	"weft/overlay/report"
)

// What the server says of itself is enough for the doctor, who then finds what it would
// find from outside.
func TestHealth(t *testing.T) {
	s := startServer(t)
	h := s.health(t.Context())
	if h.Database == 0 || h.Facts.Free < 0 || len(h.Facts.Ports) < 2 || len(h.Facts.Sites) == 0 || !h.Facts.Backup.IsZero() {
		t.Errorf("%+v", h)
	}
	h.Facts.Devices = 5
	level := map[string]report.Level{}
	for _, f := range doctor.Diagnose(h.Facts) {
		level[f.Code] = f.Level
	}
	for code, want := range map[string]report.Level{"server": report.OK, "port": report.OK, "certificate": report.OK, "backup": report.Warning, "release": report.Warning} {
		if level[code] != want {
			t.Errorf("%s: %q, want %q", code, level[code], want)
		}
	}
	if level["url"] != "" || level["database"] != "" {
		t.Error("the server says something of what it has not checked")
	}
	at := time.Now().Add(-time.Hour).Truncate(time.Second)
	ops.NoteBackup(s.Dir(), at)
	if got := s.health(t.Context()).Facts.Backup; !got.Equal(at) {
		t.Errorf("the last backup is of %s, want %s", got, at)
	}
}
