package console_test

import (
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"

	"weft/coord/console"
	"weft/coord/ops"
)

// found is what the palette's dialog is told, in order: the kinds, and the first line of
// each thing.
func (b *browser) found(text string) (names []string, body string) {
	b.t.Helper()
	req := b.request("GET", "/palette?q="+url.QueryEscape(text), nil)
	req.Header.Set("HX-Request", "true")
	body = b.do(req).want(b.t, 200, `role="listbox"`).body
	if strings.Contains(body, "<html") {
		b.t.Error("the dialog got a whole page")
	}
	checkMarkup(b.t, "/palette", body)
	for _, m := range regexp.MustCompile(`role="option".*?</svg>(?:<span>[^<]*</span></span>)?<bdi>([^<]*)</bdi>`).FindAllStringSubmatch(body, -1) {
		names = append(names, m[1])
	}
	if n := strings.Count(body, `role="option"`); n != len(names) || n > 12 {
		b.t.Errorf("%q: %d options, names %q", text, n, names)
	}
	return names, body
}

// The palette finds devices by what the list finds them by, and people, pages and actions by
// their names: each only for who may see it.
func TestPalette(t *testing.T) {
	s := newSite(t)
	owner := s.browser().enter()
	household := s.household()
	for role, name := range map[string]string{"admin": "ada", "operator": "olga", "auditor": "aude", "member": "mia"} {
		if _, err := ops.Do(t.Context(), s.net.Service, ops.Root(), ops.CreateUser{Name: name, Role: ops.Role(role), DisplayName: strings.ToUpper(name) + " <b>"}); err != nil {
			t.Fatal(err)
		}
	}
	for text, want := range map[string][]string{
		"":             {"Devices", "People", "Access", "Activity", "Network", "Settings", "Add a device", "Invite somebody", "Theme: light", "Theme: dark", "Sign out", "Add a laptop"},
		"nas":          {"nas"},
		"NAS":          {"nas"},
		"sensor arm":   {"garage-door", "weather-station"},
		"zzz":          nil,
		"mia":          {"MIA &lt;b&gt;"},
		"invite":       {"Invite somebody"},
		"theme dark":   {"Theme: dark"},
		"log out":      {"Sign out"},
		"introd":       {"Introductions"},
		"add":          {"Add a device", "Invite somebody", "Add a laptop"},
		"<script>":     nil,
		"\x00\u202e":   nil,
		"lap":          {"anna-laptop", "Add a laptop"},
		"gr":           {"greenhouse", "Groups"},
		"kitchen-pi":   {"kitchen-pi"},
		"\u00a0 nas\n": {"nas"},
	} {
		got, body := owner.found(text)
		if !slices.Equal(got, want) {
			t.Errorf("%q finds %q, want %q", text, got, want)
		}
		if len(want) == 0 && !strings.Contains(body, "Nothing matches.") {
			t.Errorf("%q: %s", text, body)
		}
		// The same without a script.
		page := owner.get("/palette?q="+url.QueryEscape(text)).want(t, 200, "<h1>Search</h1>").body
		checkMarkup(t, "/palette", page)
		for _, name := range want {
			if !strings.Contains(page, "<bdi>"+name+"</bdi>") {
				t.Errorf("the page for %q lacks %s", text, name)
			}
		}
	}
	// A device is found by its address and by the name it had, before others that match.
	d := household["nas"].Show()
	if got, _ := owner.found(d.IPv4.String()); len(got) == 0 || got[0] != "nas" {
		t.Errorf("by address: %q", got)
	}
	owner.post("/devices/"+d.ID.String()+"/rename", "name", "store").want(t, 303)
	if got, _ := owner.found("nas"); !slices.Equal(got, []string{"store"}) {
		t.Errorf("by the former name: %q", got)
	}
	// Of many, those whose names begin with it, and a way to all.
	var names []string
	for i := range 40 {
		names = append(names, fmt.Sprint("a-plc", i))
	}
	s.net.AddMany(append(names, "plc", "plc-1"), "linux/arm", "device")
	got, body := owner.found("plc")
	if len(got) != 6 || got[0] != "plc" || got[5] != "All 42 devices that match" || !strings.Contains(body, `href="/devices?q=plc"`) {
		t.Errorf("of many: %q", got)
	}

	// What a role may not see or do, it does not find; everything else leads somewhere.
	for name, want := range map[string]map[string]bool{
		"ada":  {"kitchen-pi": true, "mia": true, "invite": true, "add": true, "access": true, "activity": true, "dns": true, "keys": true, "groups": true, "sign": true},
		"olga": {"kitchen-pi": true, "mia": false, "invite": false, "add": true, "access": true, "activity": false, "dns": true, "keys": true, "groups": false, "sign": true},
		"aude": {"kitchen-pi": true, "mia": true, "invite": false, "add": false, "access": true, "activity": true, "dns": true, "groups": true, "sign": true},
		"mia":  {"kitchen-pi": false, "ada": false, "invite": false, "add": true, "access": false, "activity": false, "dns": false, "groups": false, "sign": true},
	} {
		b := s.browser().enterAs(name)
		for text, finds := range want {
			if got, _ := b.found(text); (len(got) > 0) != finds {
				t.Errorf("%s searches %q and finds %q", name, text, got)
			}
		}
		for _, text := range []string{"", "a", "s", "n", "g", "l"} {
			_, body := b.found(text)
			for _, m := range regexp.MustCompile(`<a class="item"[^>]* href="([^"]+)"`).FindAllStringSubmatch(body, -1) {
				b.get(strings.ReplaceAll(m[1], "&amp;", "&")).want(t, 200)
			}
		}
	}
	// Looking for something is no reason to wake devices.
	before := s.net.Looks()
	owner.found("kitchen")
	owner.get("/palette?q=kitchen-pi")
	if after := s.net.Looks(); after != before {
		t.Errorf("%d devices were asked", after-before)
	}
	// A theme that is chosen there leads back to the page below.
	owner.post("/theme", "theme", "dark").want(t, 303)
	if got, _ := owner.found("theme"); !slices.Equal(got, []string{"Theme: auto", "Theme: light"}) {
		t.Errorf("in the dark: %q", got)
	}
}

// The page of all parts is there for who changes them, signed in, and draws all of them.
func TestStyle(t *testing.T) {
	newSite(t).browser().enter().get("/style").want(t, 404)
	s := newSite(t, func(c *console.Config) { c.Style = true })
	s.browser().get("/style").want(t, 401)
	page := s.browser().enter().get("/style").want(t, 200, `data-theme="light"`, `data-theme="dark"`, "Attention", "Relayed UDP").body
	checkMarkup(t, "/style", page)
	ids := map[string]bool{}
	for _, m := range regexp.MustCompile(` id="([^"]+)"`).FindAllStringSubmatch(page, -1) {
		if ids[m[1]] {
			t.Errorf("the id %s is there twice", m[1])
		}
		ids[m[1]] = true
	}
}
