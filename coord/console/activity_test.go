package console_test

import (
	"crypto/ecdsa"
	"database/sql"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"html"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"weft/coord/audit"
	"weft/coord/console"
	"weft/coord/ops"
	"weft/overlay/cert"
)

// The page of what was done: filtered, with what was there before and after, as a file,
// and checked.
func TestActivity(t *testing.T) {
	s := newSite(t)
	b := s.browser().enter()
	pi := s.net.Add("kitchen-pi", "linux/arm64", "device")
	nas := s.net.Add("nas", "linux/amd64", "device")
	pi.Rename("larder-pi")
	if _, err := ops.Do(t.Context(), s.net.Service, ops.Root(), ops.SetPolicy{Text: "{\n\t\"rules\": []\n}"}); err != nil {
		t.Fatal(err)
	}
	b.get("/devices").want(t, 200, `href="/activity"`)
	b.get("/activity").want(t, 200, "<b>Renamed</b> <bdi>larder-pi</bdi>", "Records are kept for ever",
		"before: </span>kitchen-pi</del>", "after: </span>larder-pi</ins>", "{\n    &#34;rules&#34;: []\n}</ins>", `<a href="/devices/`+pi.ID.String()+`" aria-label="larder-pi, of record `)

	has := func(query string, want, not []string) {
		t.Helper()
		page := b.get("/activity?"+query).want(t, 200, want...)
		for _, n := range not {
			if strings.Contains(page.body, n) {
				t.Errorf("%s: %q is on the page", query, n)
			}
		}
	}
	const renamed, policy, joined = "<b>Renamed</b>", "<b>Changed the policy</b>", "<b>Joined</b>"
	has("what=device.", []string{renamed, joined}, []string{policy})
	has("what=policy.", []string{policy}, []string{renamed, joined})
	has("what=nonsense", []string{renamed, policy}, nil)
	has("who=root", []string{renamed, policy}, []string{joined})
	has("who=nobody", []string{"Nothing like that was recorded"}, []string{renamed})
	has("device=larder-pi", []string{renamed, joined}, []string{policy, "<bdi>nas</bdi>"})
	has("device="+nas.ID.String(), []string{joined, "<bdi>nas</bdi>"}, []string{renamed})
	has("since="+s.Now().Format(time.DateOnly), []string{renamed, policy}, nil)
	has("since=2099-01-01", []string{"Nothing like that"}, []string{renamed})
	has("since=yesterday", []string{"A day is written as in 2026-11-29.", renamed}, nil)
	has("refused=1", []string{"Nothing like that"}, []string{renamed})
	has("since=24h", []string{renamed, `<bdi>Since: last 24 hours</bdi><span class="unseen">, remove this filter</span>`}, nil)
	has("since=24h&day=2099-01-01", []string{"Nothing like that", `value="2099-01-01"`}, []string{renamed})
	has("via=cli", []string{renamed, policy}, []string{joined})
	has("via=node", []string{joined}, []string{renamed, policy})
	has("via=nonsense", []string{renamed, policy, joined}, []string{"remove this filter"})
	// Each filter in use can be taken away by itself.
	has("who=root&what=device.&via=cli", []string{renamed, `href="/activity?via=cli&amp;what=device."`, `href="/activity?via=cli&amp;who=root"`, `href="/activity?what=device.&amp;who=root"`}, []string{policy})

	// What was refused is there once its minute is over.
	s.browser().post("/sign-in", "name", "admin", "password", "canary-guess").want(t, 422)
	s.console.Close()
	s.net.Restart(func(*sql.DB) {})
	s.use(console.New(console.Config{Service: s.net.Service, Now: s.Now}))
	has("refused=1", []string{`<span class="refused">refused</span>`, "wrong name or password", "somebody"}, []string{renamed, "canary"})

	// Pages, and a file with all that the filter selects.
	for i := range 110 {
		pi.Rename(fmt.Sprint("pi-", i%2))
		if i%19 == 18 {
			s.advance(25 * time.Hour) // so often a day it may be done
		}
	}
	page := b.get("/activity?what=device.rename").want(t, 200, `rel="next">Earlier</a>`, "<bdi>Kind: Renamed</bdi>")
	if n := strings.Count(page.body, renamed); n != 100 {
		t.Errorf("%d records on a page", n)
	}
	at := regexp.MustCompile(`href="([^"]*before=[^"]*)" rel="next"`).FindStringSubmatch(page.body)
	if second := b.get(html.UnescapeString(at[1])).want(t, 200, "Latest"); strings.Count(second.body, renamed) != 11 || strings.Contains(second.body, "hx-get=\"/activity/newer") {
		t.Error("the second page is not the rest of them")
	}
	// Rows do not move: a note says how many there are by now.
	at = regexp.MustCompile(`hx-get="(/activity/newer[^"]*)"`).FindStringSubmatch(page.body)
	newer := func() answer {
		r := b.request("GET", html.UnescapeString(at[1]), nil)
		r.Header.Set("HX-Request", "true")
		return b.do(r).want(t, 200, `hx-get="`+at[1]+`"`)
	}
	if a := newer(); strings.Contains(a.body, "new record") || strings.Contains(a.body, "<html") {
		t.Errorf("%s", a.body)
	}
	s.advance(25 * time.Hour)
	pi.Rename("pi-again")
	if a := newer(); !strings.Contains(a.body, `href="/activity?what=device.rename">1 new record</a>`) {
		t.Errorf("%s", a.body)
	}
	b.get(html.UnescapeString(at[1])).want(t, 303)
	sheet := b.get("/activity/export?format=csv").want(t, 200)
	if rows, err := csv.NewReader(strings.NewReader(sheet.body)).ReadAll(); err != nil {
		t.Error(err)
	} else {
		for _, r := range rows {
			for _, cell := range r {
				if cell != "" && strings.ContainsRune("=+-@\t\r", rune(cell[0])) {
					t.Errorf("a spreadsheet would compute %q", cell)
				}
			}
		}
	}
	file := b.get("/activity/export?what=device.").want(t, 200)
	if file.Header.Get("Content-Type") != "application/x-ndjson; charset=utf-8" || !strings.HasPrefix(file.Header.Get("Content-Disposition"), `attachment; filename="weft-audit-`) {
		t.Errorf("%v", file.Header)
	}
	renames, last := 0, uint64(0)
	for line := range strings.Lines(file.body) {
		var l audit.Line
		if err := json.Unmarshal([]byte(line), &l); err != nil || l.Seq <= last || !strings.HasPrefix(l.Op, "device.") {
			t.Fatalf("%s: %v", line, err)
		}
		if last = l.Seq; l.Op == "device.rename" {
			renames++
		}
	}
	if renames != 112 {
		t.Errorf("%d renames in the file, want 112", renames)
	}
	file = b.get("/activity/export?what=device.&format=csv").want(t, 200)
	rows, err := csv.NewReader(strings.NewReader(file.body)).ReadAll()
	if err != nil || len(rows) != strings.Count(b.get("/activity/export?what=device.").want(t, 200).body, "\n")+1 || rows[0][7] != "op" || rows[len(rows)-1][7] != "device.rename" || !strings.HasSuffix(file.Header.Get("Content-Disposition"), `.csv"`) {
		t.Errorf("%d rows, %v, %v", len(rows), err, file.Header)
	}

	// Verify: as it is, with heads, and after somebody was at it.
	head, err := s.net.AuditHead(t.Context(), ops.Root())
	if err != nil {
		t.Fatal(err)
	}
	b.get("/activity/verify").want(t, 200, "Are the records as they were written?")
	b.post("/activity/verify").want(t, 200, "are as they were written, and signed for.", `data-here="/activity/verify"`)
	b.post("/activity/verify", "head", " "+head.String()+"\n").want(t, 200, "They match the head that was saved elsewhere.")
	b.post("/activity/verify", "head", "x<script>").want(t, 422, "Not the head of an audit", "x&lt;script&gt;")
	other, err := audit.Head{Network: [16]byte{1}, Seq: 1}.Sign(mustKey(t), s.Now())
	if err != nil {
		t.Fatal(err)
	}
	b.post("/activity/verify", "head", other.String()).want(t, 422, "That head belongs to network")
	s.net.Change(func(db *sql.DB) {
		if _, err := db.Exec(`UPDATE audit SET user_name = 'x' WHERE seq = 5`); err != nil {
			t.Fatal(err)
		}
	})
	b.post("/activity/verify").want(t, 200, "Something is wrong: audit record 5: its column user_name was changed")
}

func mustKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := cert.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// Who reads the audit is said by the matrix; what they may not read is not offered.
func TestActivityIsNotForMembers(t *testing.T) {
	s := newSite(t)
	s.net.Member("bob")
	b := s.browser().enterAs("bob")
	if strings.Contains(b.get("/devices").want(t, 200).body, `href="/activity"`) {
		t.Error("the page is offered")
	}
	before := s.net.State()
	b.get("/activity").want(t, 403, "Not allowed")
	b.get("/activity?refused=1").want(t, 403)
	if a := b.get("/activity/export").want(t, 403); a.Header.Get("Content-Disposition") != "" {
		t.Error("it is sent as a file")
	}
	b.get("/activity/newer").want(t, 303)
	part := b.request("GET", "/activity/newer", nil)
	part.Header.Set("HX-Request", "true")
	b.do(part).want(t, 403)
	b.get("/activity/verify").want(t, 403)
	b.post("/activity/verify").want(t, 403)
	b.get("/activity/introductions").want(t, 403)
	b.post("/activity/introductions", "tag", "camera", "report", "on").want(t, 403)
	if s.net.State() != before {
		t.Error("something changed")
	}
}

// The owner says which devices report introductions, and sees them as claims.
func TestIntroductionsPage(t *testing.T) {
	s := newSite(t)
	b := s.browser().enter()
	gate := s.net.Add("gate", "linux/arm64", "camera")
	b.get("/activity/introductions").want(t, 200, "Claims of devices", "No device has reported anything", "<p class=\"note\">None.</p>")
	b.post("/activity/introductions", "tag", "a b", "report", "on").want(t, 422, "Tag &#34;a b&#34;")
	b.post("/activity/introductions", "tag", "camera", "report", "maybe").want(t, 400)
	b.post("/activity/introductions", "tag", "tag:camera", "report", "on").want(t, 303)
	b.get("/activity/introductions?done=reports").want(t, 200, "Saved.", "<b><bdi>camera</bdi></b>")
	s.net.Change(func(db *sql.DB) {
		for i := range 110 {
			if _, err := db.Exec(`INSERT INTO introductions (network_id, hour, node_id, peer_id, inbound, first_at, last_at, count, node_name, peer_name, peer_user, paths, doubts, day)
				SELECT network_id, $1, $2, $3, 1, $4, $4, $5, 'gate', $6, 'bob', 'direct relay aes wireguard', $7, 1 FROM networks`,
				s.Now().Unix()/3600, gate.ID[:], slices.Concat([]byte{byte(i + 1)}, make([]byte, 15)), s.Now().Unix(), i+1, fmt.Sprint("peer-", i), []string{"", "unknown", "unreachable name"}[i%3]); err != nil {
				t.Fatal(err)
			}
		}
	})
	page := b.get("/activity/introductions").want(t, 200, "<b><bdi>peer-0</bdi></b> of <bdi>bob</bdi> introduced itself, once", `direct, relay <span class="hint">AES, WireGuard</span>`,
		`<span class="hint doubt">no such device ever was</span>`, `policy lets neither reach the other</span><span class="hint doubt">it has another name or owner`)
	next := strings.SplitN(strings.SplitN(page.body, `rel="next"`, 2)[0], `<a href="`, -1)
	at := strings.ReplaceAll(strings.SplitN(next[len(next)-1], `"`, 2)[0], "&amp;", "&")
	second := b.get(at).want(t, 200, "peer-59", "Latest")
	if strings.Contains(second.body, "peer-49<") || strings.Contains(page.body, "peer-50<") {
		t.Error("the pages do not follow each other")
	}
	b.get("/activity/introductions?device=gate").want(t, 200, "peer-0")
	b.get("/activity/introductions?device=nobody").want(t, 200, "There is no such device.")
	b.get("/activity/introductions?after=x").want(t, 200, "Cursor: want next")
	b.post("/activity/introductions", "tag", "camera", "report", "off").want(t, 303)
	b.get("/activity/introductions").want(t, 200, "None.")
}

// Nothing that somebody wrote into a record or a claim acts on a page, or on a file.
func TestActivityHostile(t *testing.T) {
	s := newSite(t)
	b := s.browser().enter()
	d := s.net.Add("pi", "linux/arm64", "device")
	s.console.Close()
	s.net.Restart(func(db *sql.DB) {
		for i, p := range payloads {
			value, err := json.Marshal(map[string]any{p: p, "text": strings.Repeat(p+"\n", 3), "list": []string{p}})
			if err != nil {
				t.Fatal(err)
			}
			r := audit.Record{Seq: uint64(10_000 + i), At: s.Now(), User: p, UserID: p, Role: p, Via: audit.API, From: p, Op: "device.rename", Kind: "device", ID: p, Name: p, Before: value, Refused: p, Count: 1}
			if i%2 == 0 {
				r.Kind, r.After, r.Refused = p, json.RawMessage(value), ""
			}
			r.Clean()
			encoded, err := r.Encode(nil)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := db.Exec(`INSERT INTO audit (network_id, seq, at, op, user_id, user_name, target_id, target_name, hash, record) SELECT network_id, $1, $2, $3, $4, $5, $6, $7, $8, $9 FROM networks`,
				r.Seq, r.At.UnixMilli(), r.Op, r.UserID, r.User, r.ID, r.Name, make([]byte, 32), encoded); err != nil {
				t.Fatal(err)
			}
			if _, err := db.Exec(`INSERT INTO introductions (network_id, hour, node_id, peer_id, inbound, first_at, last_at, count, node_name, peer_name, peer_user, paths, doubts, day)
				SELECT network_id, $1, $2, $3, 1, $4, $4, 1, $5, $5, $5, $5, $5, 1 FROM networks`,
				s.Now().Unix()/3600, d.ID[:], slices.Concat([]byte{byte(i)}, make([]byte, 15)), s.Now().Unix(), p); err != nil {
				t.Fatal(err)
			}
		}
		tags, err := json.Marshal(map[string]any{"introductions": payloads})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := db.Exec(`UPDATE networks SET audit = $1`, string(tags)); err != nil {
			t.Fatal(err)
		}
	})
	s.use(console.New(console.Config{Service: s.net.Service, Now: s.Now}))
	pages := []string{"/activity", fmt.Sprint("/activity?before=", 10_000+len(payloads)/2), "/activity?refused=1", "/activity/introductions"}
	for _, p := range payloads {
		q := url.QueryEscape(p)
		pages = append(pages, "/activity?who="+q+"&what="+q+"&device="+q+"&since="+q+"&via="+q+"&day="+q+"&before="+q, "/activity?who="+q, "/activity/introductions?device="+q+"&after="+q)
	}
	for _, at := range pages {
		checkMarkup(t, at, b.get(at).want(t, 200).body)
	}
	for _, p := range payloads[:10] {
		checkMarkup(t, "head", b.post("/activity/verify", "head", p).body)
		checkMarkup(t, "tag", b.post("/activity/introductions", "tag", p, "report", "on").body)
	}
	sheet := b.get("/activity/export?format=csv").want(t, 200)
	if rows, err := csv.NewReader(strings.NewReader(sheet.body)).ReadAll(); err != nil {
		t.Error(err)
	} else {
		for _, r := range rows {
			for _, cell := range r {
				if cell != "" && strings.ContainsRune("=+-@\t\r", rune(cell[0])) {
					t.Errorf("a spreadsheet would compute %q", cell)
				}
			}
		}
	}
	file := b.get("/activity/export?what=device.").want(t, 200)
	if got := http.DetectContentType([]byte(file.body)); strings.Contains(got, "html") && file.Header.Get("X-Content-Type-Options") != "nosniff" {
		t.Error("a browser may take the file for a page")
	}
	for line := range strings.Lines(file.body) {
		if !json.Valid([]byte(line)) || strings.ContainsAny(line, "\x1b\x00\r\u202e\u2028") {
			t.Errorf("%q", line)
		}
	}
}
