package console_test

import (
	"database/sql"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"weft/coord/console"
	"weft/coord/ops"
)

// Filters are chips that end with a click, and what cannot be understood is said in place.
func TestDevicesFiltered(t *testing.T) {
	s := newSite(t)
	b := s.browser().enter()
	s.household()
	b.get("/devices?q=tag:sensor+is:offline+house").want(t, 200, "1 of 7 devices", "greenhouse", `<bdi>#sensor</bdi>`, `<bdi>Offline</bdi>`, `href="/devices?q=is%3Aoffline&#43;house"`, "Show all")
	page := b.get("/devices?q=-tag:sensor&sort=-version").want(t, 200, "4 of 7 devices", "Not: #sensor", "nas", `aria-sort="descending"`, `name="sort" value="-version"`)
	if strings.Contains(page.body, ">greenhouse<") {
		t.Error("a sensor is listed")
	}
	b.get("/devices?q=macos").want(t, 200, "1 of 7 devices", "anna-laptop")
	b.get("/devices?q=colour:red").want(t, 200, `There is no filter &#34;colour:&#34;`, `value="colour:red"`, "Show all 7")
	b.get("/devices?state=online&q=sensor").want(t, 200, `value="sensor is:online"`, "1 of 7 devices")
	b.get("/devices?sort=colour").want(t, 200, "7 devices")
	b.get("/devices?n=3&from=2").want(t, 200, "3–5 of 7 devices")
	// Tags that every device has tell nothing.
	if page := b.get("/devices?q=nas"); strings.Contains(page.body, "<bdi>device</bdi>") {
		t.Error("the tag device is shown")
	}
	// For live updates only the rows are drawn.
	r := b.request("GET", "/devices", nil)
	r.Header.Set("HX-Request", "true")
	r.Header.Set("Weft-Passive", "list")
	if a := b.do(r); strings.Contains(a.body, "Older than") || strings.Contains(a.body, "#sensor</bdi>") || !strings.Contains(a.body, `id="list"`) {
		t.Error("filters are drawn for a live update")
	}
}

// What a person wants to see of devices is kept in the browser.
func TestDevicesLook(t *testing.T) {
	s := newSite(t)
	b := s.browser().enter()
	s.household()
	b.get("/devices").want(t, 200, `class="c-version"`, `class="c-owner"`)
	if to := b.post("/devices/list/view", "column", "status", "column", "system", "column", "nonsense", "rows", "roomy", "back", "/devices?q=nas&sort=-seen&from=50").want(t, 303).Header.Get("Location"); to != "/devices?from=50&q=nas&sort=-seen" {
		t.Error(to)
	}
	page := b.get("/devices").want(t, 200, "grid fixed devices roomy", `class="c-system"`, `class="c-status"`, `class="c-name"`)
	for _, gone := range []string{`class="c-version"`, `class="c-tags"`, `class="c-seen"`} {
		if strings.Contains(page.body, gone) {
			t.Errorf("%s is still there", gone)
		}
	}
	for _, back := range []string{"https://evil.example/", "//evil.example", "/account", "/devices/../account", "\\\\evil"} {
		if to := b.post("/devices/list/view", "back", back).want(t, 303).Header.Get("Location"); to != "/devices" {
			t.Errorf("%s leads to %s", back, to)
		}
	}
}

// Many devices are changed by a form, each or with the reason why not.
func TestDevicesBulk(t *testing.T) {
	s := newSite(t)
	b := s.browser().enter()
	made := s.household()
	id := func(name string) string { return made[name].ID.String() }
	tags := func(name string) string { return strings.Join(made[name].Show().Tags, " ") }
	const back = "/devices?q=tag%3Asensor"

	to := b.post("/devices/list/change", "do", "add-tag", "tag", "#site-berlin", "id", id("nas"), "id", id("greenhouse"), "back", back).want(t, 303).Header.Get("Location")
	b.get(to).want(t, 200, "2 devices got the tag.", "3 of 7 devices")
	if tags("nas") != "device site-berlin" || tags("greenhouse") != "device sensor site-berlin" {
		t.Error(tags("nas"), tags("greenhouse"))
	}
	b.post("/devices/list/change", "do", "remove-tag", "tag", "site-berlin", "id", id("nas"), "back", back).want(t, 303)
	if tags("nas") != "device" {
		t.Error(tags("nas"))
	}
	// All of the list, whatever page is shown.
	b.post("/devices/list/change", "do", "add-tag", "tag", "outside", "all", "1", "back", back).want(t, 303)
	if tags("weather-station") != "device outside sensor" || tags("nas") != "device" {
		t.Error(tags("weather-station"), tags("nas"))
	}
	s.net.Member("anna")
	b.post("/devices/list/change", "do", "owner", "owner", "anna", "id", id("anna-laptop"), "back", "/devices").want(t, 303)
	if made["anna-laptop"].Show().User != "anna" {
		t.Error("the laptop was not handed over")
	}
	gone := strings.Repeat("0", 31) + "1"
	b.post("/devices/list/change", "do", "owner", "owner", "anna", "id", id("workbench"), "id", gone).want(t, 422, "1 device could not be changed", "1 device changed hands", "A device that is not there any more", "It is not there any more.")
	b.post("/devices/list/change", "do", "owner", "owner", "nobody", "id", id("workbench")).want(t, 422, "There is no user of this name.", "workbench", "Nothing was changed.")
	b.post("/devices/list/change", "do", "add-tag", "tag", "two words", "id", id("nas")).want(t, 422, "1 device could not be changed", "nas")

	for name, c := range map[string]struct {
		form []string
		want string
	}{
		"nothing chosen":  {[]string{"do", "add-tag", "tag", "x"}, "No device is chosen"},
		"no tag":          {[]string{"do", "add-tag", "id", id("nas")}, "Say which tag"},
		"no owner":        {[]string{"do", "owner", "id", id("nas")}, "Say who"},
		"a broken filter": {[]string{"do", "delete", "all", "1", "back", "/devices?q=x%3Ay"}, "There is no filter"},
		"gone":            {[]string{"do", "delete", "id", gone}, "not there any more"},
	} {
		if a := b.post("/devices/list/change", c.form...); a.StatusCode != 422 || !strings.Contains(a.body, c.want) {
			t.Errorf("%s: %d %s", name, a.StatusCode, a.body)
		}
	}
	for name, form := range map[string][]string{"no such thing": {"do", "format", "id", id("nas")}, "no id": {"do", "delete", "id", "../nas"}} {
		if a := b.post("/devices/list/change", form...); a.StatusCode != 400 {
			t.Errorf("%s: %d", name, a.StatusCode)
		}
	}

	// Deletion asks: for one by its name, for several by their number.
	b.post("/devices/list/change", "do", "delete", "id", id("nas"), "back", back).want(t, 200, "Delete 1 device?", `data-must-be="nas"`)
	b.post("/devices/list/change", "do", "delete-now", "id", id("nas"), "typed", "1").want(t, 422, "That is not its name. Nothing was deleted.")
	page := b.post("/devices/list/change", "do", "delete", "all", "1", "back", back).want(t, 200, "Delete 3 devices?", `data-must-be="3"`, "garage-door", `value="`+id("garage-door")+`"`, `value="/devices?q=tag%3Asensor"`)
	if strings.Contains(page.body, id("nas")) {
		t.Error("what does not match is to be deleted too")
	}
	three := []string{"do", "delete-now", "id", id("garage-door"), "id", id("greenhouse"), "id", id("weather-station"), "back", back}
	b.post("/devices/list/change", append(three, "typed", "2")...).want(t, 422, "That is not their number.")
	if list, err := s.net.Devices(t.Context(), ops.Root(), ops.DeviceQuery{}); err != nil || list.All != 7 {
		t.Fatalf("%d are left, %v", list.All, err)
	}
	to = b.post("/devices/list/change", append(three, "typed", "3")...).want(t, 303).Header.Get("Location")
	b.get(to).want(t, 200, "3 devices deleted.")
	if list, err := s.net.Devices(t.Context(), ops.Root(), ops.DeviceQuery{}); err != nil || list.All != 4 {
		t.Errorf("%d are left, %v", list.All, err)
	}
	// An address cannot have the console say anything.
	if page := b.get("/devices?did=%3Cb%3Eowned&n-did=3"); strings.Contains(page.body, "owned") {
		t.Error("it says what the address says")
	}
	if page := b.get("/devices?did=owner&n-did=1000000"); strings.Contains(page.body, "changed hands") {
		t.Error("a million devices changed hands")
	}
}

// A form with as many devices as there may be goes through, one with more does not.
func TestDevicesBulkBounds(t *testing.T) {
	s := newSite(t)
	b := s.browser().enter()
	form := []string{"do", "add-tag", "tag", "x", "back", "/devices?q=" + strings.Repeat("a", 500)}
	for i := range ops.MaxDeviceChange {
		form = append(form, "id", fmt.Sprintf("%032x", i))
	}
	b.post("/devices/list/change", form...).want(t, 422, "1,000 devices could not be changed")
	b.post("/devices/list/change", append(form, "id", strings.Repeat("f", 32))...).want(t, 422, "At most 1000 devices")
	b.post("/devices/list/change", append(form, "owner", strings.Repeat("x", 40<<10))...).want(t, 413)
}

// Members export, count and change what is theirs; auditors change nothing.
func TestDevicesOfOthers(t *testing.T) {
	s := newSite(t)
	admin := s.browser().enter()
	made := s.household()
	s.net.Member("anna")
	admin.post("/devices/list/change", "do", "owner", "owner", "anna", "id", made["anna-laptop"].ID.String()).want(t, 303)
	anna := s.browser().enterAs("anna")
	for _, at := range []string{"/devices", "/devices/export", "/devices/ids", "/devices/export?q=-zzz", "/devices?q=is:online,offline&sort=owner"} {
		a := anna.get(at).want(t, 200)
		for name, d := range made {
			if name != "anna-laptop" && (strings.Contains(a.body, name) || strings.Contains(a.body, d.ID.String()) || strings.Contains(a.body, d.Show().IPv4.String()+"<")) {
				t.Errorf("%s shows %s to anna", at, name)
			}
		}
		if strings.Contains(a.body, "sensor") {
			t.Errorf("%s shows a tag to anna", at)
		}
	}
	nas := made["nas"].ID.String()
	anna.post("/devices/list/change", "do", "delete", "id", nas).want(t, 422, "not there any more")
	anna.post("/devices/list/change", "do", "delete-now", "id", nas, "typed", "nas").want(t, 422, "not there any more")
	if a := anna.post("/devices/list/change", "do", "add-tag", "tag", "x", "id", nas).want(t, 422); strings.Contains(a.body, "nas") {
		t.Error("anna learns a name")
	}
	anna.post("/devices/list/change", "do", "owner", "owner", "admin", "id", made["anna-laptop"].ID.String()).want(t, 422, "You may not do this to it.")
	if tags := made["nas"].Show().Tags; !slices.Equal(tags, []string{"device"}) {
		t.Error(tags)
	}
	if _, err := ops.Do(t.Context(), s.net.Service, ops.Root(), ops.CreateUser{Name: "audrey", Role: ops.RoleAuditor}); err != nil {
		t.Fatal(err)
	}
	audrey := s.browser().enterAs("audrey")
	if page := audrey.get("/devices").want(t, 200, "nas"); strings.Contains(page.body, `type="checkbox" name="id"`) || strings.Contains(page.body, "Delete…") {
		t.Error("an auditor is offered changes")
	}
	audrey.post("/devices/list/change", "do", "add-tag", "tag", "x", "id", nas).want(t, 422, "You may not do this to it.")
}

// An export is CSV of what is filtered, in its order, and no cell of it is a formula.
func TestDevicesExport(t *testing.T) {
	s := newSite(t)
	b := s.browser().enter()
	made := s.household()
	read := func(at string) [][]string {
		t.Helper()
		a := b.get(at).want(t, 200)
		if got := a.Header.Get("Content-Type"); !strings.HasPrefix(got, "text/csv") {
			t.Error(got)
		}
		if got := a.Header.Get("Content-Disposition"); !strings.HasPrefix(got, `attachment; filename="weft-devices-`) {
			t.Error(got)
		}
		rows, err := csv.NewReader(strings.NewReader(a.body)).ReadAll()
		if err != nil {
			t.Fatal(err)
		}
		return rows
	}
	rows := read("/devices/export?q=tag:sensor&sort=-name")
	var names []string
	for _, r := range rows {
		names = append(names, r[0])
	}
	if want := []string{"name", "weather-station", "greenhouse", "garage-door"}; !slices.Equal(names, want) {
		t.Errorf("%v, want %v", names, want)
	}
	if rows := read("/devices/export?q=nothing"); len(rows) != 1 {
		t.Errorf("%v", rows)
	}
	b.get("/devices/export?q=a:b:c-x:y").want(t, 200)
	b.get("/devices/export?q=x:y").want(t, 400)
	var ids struct {
		IDs   []string `json:"ids"`
		Total int      `json:"total"`
	}
	if err := json.Unmarshal([]byte(b.get("/devices/ids?q=tag:sensor&from=1&n=1").body), &ids); err != nil || ids.Total != 3 || !slices.Equal(ids.IDs, []string{made["greenhouse"].ID.String()}) {
		t.Errorf("%+v, %v", ids, err)
	}
	b.get("/devices/ids?q=x:y").want(t, 400)

	fleet := s.net.AddMany(slices.Repeat([]string{"x"}, len(payloads)), "linux/arm64", "device")
	s.console.Close()
	s.net.Restart(func(db *sql.DB) {
		for i, p := range payloads {
			if _, err := db.Exec(`UPDATE nodes SET name=$1, os=$2, software=$2, tags=$3 WHERE node_id=$4`, fmt.Sprint(p, i), p, strings.ReplaceAll(p, ",", ""), fleet[i].ID[:]); err != nil {
				t.Fatal(err)
			}
		}
	})
	s.use(console.New(console.Config{Service: s.net.Service, Now: s.Now}))
	s.net.Presence(fleet[0].ID, 1, true, s.Now(), netip.MustParseAddr("192.0.2.1"))
	rows = read("/devices/export")
	if len(rows) != 1+len(made)+len(payloads) {
		t.Errorf("%d rows", len(rows))
	}
	for _, r := range rows {
		if len(r) != len(rows[0]) {
			t.Errorf("%d cells: %q", len(r), r)
		}
		for _, cell := range r {
			if trimmed := strings.TrimLeft(cell, " \t\r\n"); trimmed != "" && strings.ContainsRune("=+-@", rune(trimmed[0])) || strings.ContainsAny(cell, "\x00\r\n") {
				t.Errorf("the cell %q", cell)
			}
		}
	}
}
