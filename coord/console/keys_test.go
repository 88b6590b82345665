package console_test

import (
	"database/sql"
	"strings"
	"testing"
	"time"

	"weft/coord/ops"
)

// A key for a relay is said to be one, and its pages offer nothing that is for devices.
func TestKeyOfRelay(t *testing.T) {
	s := newSite(t)
	b := s.browser().enter()
	k, err := ops.Do(t.Context(), s.net.Service, ops.Root(), ops.CreateKey{Relay: true, Note: "far away"})
	if err != nil {
		t.Fatal(err)
	}
	shows := func(path string, want ...string) {
		t.Helper()
		a := b.get(path).want(t, 200, want...)
		for _, not := range []string{"one laptop", "one device", "Add a laptop</h1>", "/add?for=", "/add/relay"} {
			if strings.Contains(a.body, not) {
				t.Errorf("%s of a relay's key has %q", path, not)
			}
		}
	}
	shows("/network/keys", "far away", "one relay")
	page := "/network/keys/" + k.ID + "/join"
	shows(page, "Add a relay", "not shown any more", "Waiting for the relay to join")
	s.net.Change(func(db *sql.DB) {
		if _, err := db.Exec(`UPDATE keys SET uses = 1, used_at = $2 WHERE key_id = $1`, k.ID, time.Now().Unix()); err != nil {
			t.Fatal(err)
		}
	})
	shows("/network/keys", "one relay", "used")
	shows(page, "used up", "A relay joined with this token", "weft-server keys create --relay")
}
