package console_test

import (
	"context"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"weft/coord/console"
	"weft/coord/install"
	"weft/coord/ops"
	"weft/overlay/release"
)

// offered has the console hand out a release with programs for some systems.
func (s *site) offered(systems ...string) {
	m := &release.Manifest{Version: "1"}
	for _, system := range systems {
		suffix := ""
		if system == "windows" {
			suffix = ".exe"
		}
		m.Files = append(m.Files, release.File{Name: "weft-" + system + "-amd64" + suffix, Program: "weft", OS: system, Arch: "amd64", Kind: "binary", SHA256: "0a1b"})
	}
	s.console.Close()
	s.use(console.New(console.Config{Service: s.net.Service, Now: s.Now, Offer: func() *install.Offer {
		return &install.Offer{Base: "https://weft.example:8443", Pin: "sha256//abc=", Manifest: m}
	}}))
}

// made makes a key for a choice and returns the page with how to use it.
func made(t *testing.T, b *browser, choice string, more ...string) (at string, page answer) {
	t.Helper()
	at = b.post("/network/keys", append([]string{"for", choice, "tags", "device", "life", "7d"}, more...)...).want(t, 303).Header.Get("Location")
	if !strings.HasSuffix(at, "/join?for="+choice) {
		t.Errorf("%s leads to %s", choice, at)
	}
	return at, b.get(at).want(t, 200)
}

var copies = regexp.MustCompile(`data-copy="([^"]*)"`)

// Each choice has the line that the server really offers for it, or says what is missing first.
func TestAddEach(t *testing.T) {
	s := newSite(t)
	b := s.browser().enter()
	s.offered("linux", "darwin", "windows")
	b.get("/add").want(t, 200, `href="/add?for=linux" aria-current="true"`, "OpenWrt", "Golden image")
	b.get("/add?for=%3Cb%3E").want(t, 200, `href="/add?for=linux" aria-current="true"`)
	b.get("/add/device").want(t, 200, "Add a device</h1>", `name="for" value="linux"`)
	b.get("/add/laptop").want(t, 200, "Add a laptop</h1>", `name="for" value="laptop"`, "weft up --server", `href="/approve"`)
	const script = "curl -fsSLk --pinnedpubkey sha256//abc= https://weft.example:8443/install/for/KEY | sh -s -- TOKEN"
	for _, c := range []struct {
		choice      string
		more        []string
		first, then string // lines; "" for none
		root        bool   // the main line takes root
	}{
		{"linux", nil, script, script + " --user", true},
		{"macos", nil, script, "weft run --token TOKEN", true},
		{"windows", nil, `$f = "$env:TEMP\weft.exe"; curl.exe -fsSLk --pinnedpubkey sha256//abc= -o $f https://weft.example:8443/install/for/KEY/weft-windows-amd64.exe; if ((Get-FileHash $f).Hash -eq '0a1b') { 'TOKEN' | & $f install --token-file - } else { throw 'weft: that is not the program of this line; try again' }`, "", true},
		{"openwrt", nil, "opkg update && opkg install curl", script, true},
		{"container", nil, "scripts/release --key ~/release.key linux/amd64 && docker build -f scripts/package/Dockerfile --build-arg ARCH=amd64 -t weft releases", "docker run -d --name weft --restart unless-stopped -v weft:/state -e WEFT_TOKEN=TOKEN weft", false},
		{"image", []string{"reusable", "1"}, script + " --first-boot", "", true},
		{"laptop", nil, script, `$f = "$env:TEMP`, true},
	} {
		at, page := made(t, b, c.choice, c.more...)
		token, key := page.token(t), strings.Split(at, "/")[3]
		var lines []string
		for _, m := range copies.FindAllStringSubmatch(page.body, -1) {
			lines = append(lines, strings.NewReplacer("&#34;", `"`, "&#39;", "'", "&amp;", "&", "&#43;", "+", token, "TOKEN", key, "KEY").Replace(m[1]))
		}
		if len(lines) == 0 || lines[0] != c.first || c.then != "" && (len(lines) < 2 || !strings.HasPrefix(lines[1], c.then)) {
			t.Errorf("%s has %q", c.choice, lines)
		}
		// In view the token is cut in the middle, and nothing of it is lost.
		if c.choice != "openwrt" && !strings.Contains(page.body, token[:12]+`<span class="cut">`+token[12:len(token)-6]+"</span>"+token[len(token)-6:]) {
			t.Errorf("%s shows the token otherwise", c.choice)
		}
		how := strings.SplitN(page.body, "Other ways", 2)[0]
		if c.root && strings.Contains(how, "no root") || c.root && strings.Contains(how, "without root") {
			t.Errorf("%s: above a line that takes root it says that it does not", c.choice)
		}
	}
	_, page := made(t, b, "image", "reusable", "1")
	page.want(t, 200, "weft uninstall --purge", "This token can be used again")
	b.post("/network/keys", "for", "image", "tags", "device", "life", "7d").want(t, 422, "A golden image needs a reusable token")
	b.get("/add?for=image").want(t, 200, `name="reusable" value="1" checked`, `value="90d" selected`)

	// The same key with another choice, and choices that need another key.
	at, page := made(t, b, "linux")
	page.want(t, 200, `href="`+strings.Replace(at, "linux", "windows", 1)+`"`, `href="/add?for=laptop"`, `href="/add?for=image"`)
	b.get(strings.Replace(at, "linux", "windows", 1)).want(t, 200, "In PowerShell")
	b.get(strings.Replace(at, "linux", "laptop", 1)).want(t, 200, "Add a device</h1>")

	// What the release has not, is said with what to do.
	s.offered("linux")
	b.get("/add?for=windows").want(t, 200, "The release on this server has no program for this system.", "scripts/release --key")
	b.get("/add?for=linux").want(t, 200)
	s.console.Close()
	s.use(console.New(console.Config{Service: s.net.Service, Now: s.Now}))
	b.get("/add?for=openwrt").want(t, 200, "This server has no release to hand out yet.")
	if page := b.get("/add?for=container").want(t, 200); strings.Contains(page.body, "no release") {
		t.Error("a container needs no release here")
	}
}

// The steps follow what the server sees: a request for the files, the join, the first answer; and
// where they do not go on the page says what to look at.
func TestAddSteps(t *testing.T) {
	s := newSite(t)
	b := s.browser().enter()
	s.offered("linux")
	at, page := made(t, b, "linux")
	key := strings.Split(at, "/")[3]
	token := page.token(t)
	step := func(want ...string) answer {
		t.Helper()
		return b.get(at).want(t, 200, want...)
	}
	const waiting, downloading, joined, reachable = `<li class="now" aria-current="step"><i aria-hidden="true"></i><span class="step">Waiting`, `<li class="now" aria-current="step"><i aria-hidden="true"></i><span class="step">Downloading`, `<span class="step">Joined`, `<span class="step">Reachable`
	if page := step(waiting, `<li class="todo"><i aria-hidden="true"></i><span class="step">Downloading`); strings.Contains(page.body, "Nothing has asked") {
		t.Error("it complains at once")
	}
	s.advance(3 * time.Minute)
	step("Nothing has asked this server since the token was made, 3 min ago.", `<li class="failed">`, "Has the whole line been run there?")
	// A request for another key, or for none that is shown, says nothing.
	s.console.Fetched("0123456789abcdef", true, netip.MustParseAddr("203.0.113.9"))
	step(`<li class="failed">`)
	s.console.Fetched(key, false, netip.MustParseAddr("203.0.113.9"))
	if page := step(downloading, `<bdi>from 203.0.113.9</bdi>`); strings.Contains(page.body, "Nothing has asked") {
		t.Error("it still complains")
	}
	s.advance(4 * time.Minute)
	step("The files were fetched 4 min ago, and nothing has joined.")
	d, err := s.net.Join(token, "kitchen-pi", "linux/arm64")
	if err != nil {
		t.Fatal(err)
	}
	after := step(joined, `<bdi>kitchen-pi</bdi>`, `<li class="now" aria-current="step"><i aria-hidden="true"></i><span class="step">Reachable`, "Waiting for its connection")
	if strings.Contains(after.body, token) {
		t.Error("a used token is still shown")
	}
	s.advance(time.Minute)
	step("kitchen-pi has joined, and is not connected to a relay.", "weft doctor")
	d.Connect()
	req := b.request("POST", "/devices/"+d.ID.String()+"/test", url.Values{})
	req.Header.Set("HX-Request", "true")
	b.do(req).want(t, 200, " ms</b>")
	step(`<li class="done"><i aria-hidden="true"></i><span class="step">Reachable</span> <span class="detail"><bdi>in 300.0 s</bdi></span>`)

	// Without a download it is counted from the join, and a container has no such step.
	at, page = made(t, b, "container")
	if d, err = s.net.Join(page.token(t), "box", "linux/amd64"); err != nil {
		t.Fatal(err)
	}
	d.Connect()
	s.advance(7 * time.Second)
	b.post("/devices/"+d.ID.String()+"/test").want(t, 200)
	if page := step(reachable, "<bdi>in 7 s</bdi>"); strings.Contains(page.body, "Downloading") {
		t.Error("a container downloads nothing here")
	}

	// A token that ended says so, and leads to a new one for the same choice.
	at, _ = made(t, b, "linux")
	s.advance(8 * 24 * time.Hour)
	b = s.browser().signIn()
	step("This token is expired.", `href="/add?for=linux">Make a new one</a>`)
	at, _ = made(t, b, "linux")
	b.post("/network/keys/"+strings.Split(at, "/")[3]+"/revoke").want(t, 303)
	step("This token is revoked.", "Make a new one")
}

// What the console sees of a fetch reaches the page that waits for it at once, and no page of
// another session.
func TestFetchIsTold(t *testing.T) {
	s := newSite(t)
	b := s.browser().enter()
	at, _ := made(t, b, "linux")
	key := strings.Split(at, "/")[3]
	events := func(b *browser) <-chan string {
		ctx, cancel := context.WithCancel(t.Context())
		t.Cleanup(cancel)
		res, err := b.Client.Do(b.request("GET", "/events", nil).WithContext(ctx))
		if err != nil {
			t.Fatal(err)
		}
		lines := make(chan string, 100)
		go func() {
			defer close(lines)
			defer res.Body.Close()
			buffer := make([]byte, 4096)
			for {
				n, err := res.Body.Read(buffer)
				if n > 0 {
					lines <- string(buffer[:n])
				}
				if err != nil {
					return
				}
			}
		}()
		for l := range lines {
			if strings.Contains(l, "resync") {
				return lines
			}
		}
		t.Fatal("the stream ended")
		return nil
	}
	mine, other := events(b), events(s.browser().signIn())
	s.console.Fetched(key, false, netip.MustParseAddr("203.0.113.9"))
	for l := range mine {
		if strings.Contains(l, "key-"+key) {
			break
		}
	}
	// Anything that both get comes after it in the other stream.
	s.net.Add("later", "linux/arm64", "device")
	for l := range other {
		if strings.Contains(l, "key-"+key) {
			t.Fatal("another session is told")
		}
		if strings.Contains(l, "devices") {
			break
		}
	}
	// More than a page takes at once are dropped, and nobody waits.
	for range 1000 {
		s.console.Fetched(key, true, netip.MustParseAddr("203.0.113.9"))
	}
}

// Who makes no keys is told so, and a form of another site makes none.
func TestAddIsForThoseWhoMay(t *testing.T) {
	s := newSite(t)
	s.browser().enter()
	if _, err := ops.Do(t.Context(), s.net.Service, ops.Root(), ops.CreateUser{Name: "audrey", Role: ops.RoleAuditor}); err != nil {
		t.Fatal(err)
	}
	s.net.Member("bob")
	audrey, bob := s.browser().enterAs("audrey"), s.browser().enterAs("bob")
	before := s.net.State()
	for _, at := range []string{"/add", "/add/laptop"} {
		if page := audrey.get(at).want(t, 200, "An auditor reads everything and adds nothing"); strings.Contains(page.body, `action="/network/keys"`) {
			t.Error("a form that an auditor may not send")
		}
	}
	audrey.post("/network/keys", "for", "linux", "tags", "device", "life", "1h").want(t, 403)
	audrey.post("/network/keys", "for", "laptop", "life", "1h").want(t, 403)
	bob.post("/network/keys", "for", "linux", "tags", "device", "life", "1h").want(t, 422, "Only owners and admins may give or remove the tag device")
	r := bob.request("POST", "/network/keys", form("for", "laptop", "life", "1h"))
	r.Header.Set("Origin", "https://evil.example")
	r.Header.Set("Sec-Fetch-Site", "cross-site")
	bob.do(r).want(t, http.StatusForbidden)
	if s.net.State() != before {
		t.Error("a key was made")
	}
	made(t, bob, "laptop")
}
