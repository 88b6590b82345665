package console_test

import (
	"fmt"
	"html"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"testing"

	"weft/coord/ops"
	"weft/coord/policy"
	"weft/coord/store"
)

// editor is what the page has in its form.
func (a answer) editor(t *testing.T) (text, match string) {
	t.Helper()
	m := regexp.MustCompile(`(?s)name="match" value="([0-9a-f]+)".*<textarea[^>]*>\n(.*?)</textarea>`).FindStringSubmatch(a.body)
	if m == nil {
		t.Fatalf("no form in\n%s", a.body)
	}
	return html.UnescapeString(m[2]), m[1]
}

func (s *site) policy() ops.PolicyText {
	s.t.Helper()
	p, err := s.net.Policy(s.t.Context(), ops.Root())
	if err != nil {
		s.t.Fatal(err)
	}
	return p
}

func TestAccessPage(t *testing.T) {
	s := newSite(t)
	b := s.browser().enter()
	s.household()
	s.net.Member("ben")
	b.get("/devices").want(t, 200, `href="/access"`)
	b.get("/access").want(t, 200, "what a network starts with, until a policy is saved", `title="user:*"><bdi>everybody</bdi>`, `title="self"><bdi>their own devices</bdi>`, `href="/access/policy?line=5"`)
	b.get("/access/history").want(t, 200, "Empty: nothing was saved yet.")
	b.get("/access/tests").want(t, 200, "The policy has no tests.")
	b.get("/access/tags").want(t, 200, "The policy names no tag.", "The policy names no group.")
	page := b.get("/access/policy").want(t, 200, "Nothing was set yet")
	text, match := page.editor(t)
	if text != policy.StartingText {
		t.Errorf("the editor has %q", text)
	}

	// Check says who gains and loses what, and saves nothing; with and without htmx.
	next := "\n// as typed <b>\n{\"rules\": [\n  {\"from\": [\"user:*\"], \"to\": [\"self\"], \"ports\": [\"tcp\", \"udp\"]},\n  {\"from\": [\"user:ben\", \"user:eve\"], \"to\": [\"tag:sensor\"], \"ports\": [\"tcp:22\"]}, // é\n],\n\"tests\": [{\"src\": \"ben\", \"accept\": [\"greenhouse:22\"]}]}\n"
	dos := strings.ReplaceAll(next, "\n", "\r\n") // as browsers send it
	wants := []string{"<h3>Who gains what</h3>", "<bdi>ben</bdi>", "garage-door, greenhouse, weather-station", "tcp:22", "<h3>Who loses what</h3>", "icmp, other protocols", "1 test passed", "there is no person &#34;eve&#34;", `data-line="5"`}
	whole := b.post("/access/check", "text", dos, "match", match).want(t, 200, wants...)
	if got, _ := whole.editor(t); got != next {
		t.Errorf("the editor has %q", got)
	}
	req := b.request("POST", "/access/check", form("text", dos, "match", match))
	req.Header.Set("HX-Request", "true")
	if part := b.do(req).want(t, 200, wants...); strings.Contains(part.body, "<html") || strings.Contains(part.body, "<textarea") {
		t.Error("htmx got a whole page")
	}
	if s.policy().Text != "" {
		t.Error("a check has saved the text")
	}

	// Mistakes are told by line, and the text stays.
	for _, c := range []struct {
		text  string
		wants []string
	}{
		{"{\"rules\": [\n  {\"from\": [\"<i>alice\"], \"to\": [\"*\"], \"ports\": [\"*\"]},\n  {\"to\": 3}]}", []string{"2 things to put right", `data-line="2" data-column="13"`, "from &#34;&lt;i&gt;alice&#34;", `data-line="3"`}},
		{`{"tests": [{"src": "ben", "accept": ["nas:22"]}]}`, []string{"ben does not reach nas:22: no rule allows it", `data-line="1"`}},
		{`{"rules": [`, []string{"this bracket is not closed"}},
		{"  \n", []string{"It is empty"}},
	} {
		for _, to := range []string{"/access", "/access/check"} {
			a := b.post(to, "text", c.text, "match", match).want(t, 422, c.wants...)
			if got, again := a.editor(t); got != c.text || again != match {
				t.Errorf("%s: the editor has %q", to, got)
			}
		}
	}
	if s.policy().Text != "" {
		t.Error("a mistake was saved")
	}

	// Save.
	b.post("/access", "text", dos, "match", match).want(t, 303)
	b.get("/access?done=policy").want(t, 200, "Saved and in force", `href="/people/person?name=ben"><bdi>ben</bdi>`, `<a href="/access/policy?line=5" aria-label="Rule 2 in the text, line 5">Line 5</a>`,
		`title="there is no person &#34;eve&#34;: until there is, this selects nobody"><span class="status attention">`, "1 name in the policy stands", `<span class="count">3 devices</span>`)
	b.get("/access/history").want(t, 200, `id="n-1"`, "<bdi>admin</bdi>", "In force")
	page = b.get("/access/policy?line=5").want(t, 200, `data-line="5"`, `<a href="/access#rule-2">Rule 2 in the table</a>`, "<code>{&#34;from&#34;: [&#34;user:ben&#34;, &#34;user:eve&#34;]")
	if got, _ := page.editor(t); got != next || s.policy().Text != next {
		t.Errorf("saved as %q", got)
	}

	// Somebody else was quicker: what was typed stays, and can be saved over theirs.
	mine := "{} // mine\n"
	a := b.post("/access", "text", mine, "match", match).want(t, 409, "admin has changed the policy since you opened it: it is number 1 now")
	got, fresh := a.editor(t)
	if got != mine || fresh != s.policy().Revision || s.policy().Text != next {
		t.Errorf("the editor has %q for %s", got, fresh)
	}
	b.post("/access", "text", mine, "match", fresh).want(t, 303)

	// History: looking at one changes nothing, reverting does, through the same checks.
	if to := b.get("/access?number=1").want(t, 303).Header.Get("Location"); to != "/access/policy?number=1" {
		t.Error(to)
	}
	b.get("/access/history?number=1").want(t, 200, "Against the policy that a network starts with", "<ins><span class=\"unseen\">added: </span>// as typed &lt;b&gt;</ins>", `<del><span class="unseen">removed: </span>// Who may reach whom.`)
	b.get("/access/history?number=2").want(t, 200, "Against number 1 of the history", "// mine</ins>")
	page = b.get("/access/policy?number=1").want(t, 200, "This is number 1 of the history")
	if got, _ := page.editor(t); got != next {
		t.Errorf("the editor has %q", got)
	}
	b.get("/access/policy?number=7").want(t, 404)
	b.get("/access/history?number=7").want(t, 200)
	_, now := page.editor(t)
	b.post("/access/revert", "number", "1", "match", match).want(t, 409, "since you opened it")
	b.post("/access/revert", "number", "7", "match", now).want(t, 404)
	b.post("/access/revert", "number", "1", "match", now).want(t, 303)
	if p := s.policy(); p.Text != next || p.Number != 3 {
		t.Errorf("%+v", p)
	}
	b.get("/access/policy?number=0").want(t, 200, "This is the policy that a network starts with.").editor(t)

	// The question.
	b.get("/access?from=ben&to=greenhouse:22").want(t, 200, "Yes</b>, by rule 2 in line 5", `<a href="/access#rule-2">Rule 2 in the table</a>`, `id="rule-2" class="marked"`, "greenhouse is offline: that does not change the answer.")
	b.get("/access?from=ben&to=nas:22").want(t, 200, "No</b>, no rule allows it")
	b.get("/access?from=nobody&to=nas:22").want(t, 200, "No person and no device", "there is none of this name")
	b.get("/access?from=ben&to=nas").want(t, 200, "want DEVICE:PORT")
	part := b.request("GET", "/access/can?from=ben&to=nas:22", nil)
	part.Header.Set("HX-Request", "true")
	if a := b.do(part).want(t, 200, "No</b>"); strings.Contains(a.body, "<html") {
		t.Error("htmx got a whole page")
	}
	b.get("/access/can?from=ben&to=nas:22").want(t, 303)
}

// A policy of the largest size fits through the form, and one that is larger does not.
func TestLargePolicy(t *testing.T) {
	s := newSite(t)
	b := s.browser().enter()
	text := "{}\n// " + strings.Repeat("é", policy.MaxText/2-4)
	text += strings.Repeat("x", policy.MaxText-len(text))
	b.post("/access", "text", text).want(t, 303)
	if s.policy().Text != text {
		t.Error("it is another one now")
	}
	b.get("/access/policy").want(t, 200)
	b.get("/access").want(t, 200)
	b.get("/access/history?number=1").want(t, 200)
	b.post("/access", "text", text+"x").want(t, 422, "262145 bytes, at most 262144")
	b.post("/access", "text", strings.Repeat("é", policy.MaxText)).want(t, 413)
	b.post("/devices/x/rename", "name", text).want(t, 413)
}

// The policy is not for members to see.
func TestAccessPageIsTheOwners(t *testing.T) {
	s := newSite(t)
	s.net.Member("bob")
	b := s.browser().enterAs("bob")
	if strings.Contains(b.get("/devices").want(t, 200).body, `href="/access"`) {
		t.Error("the page is offered")
	}
	before := s.net.State()
	b.get("/access").want(t, 403, "Not allowed")
	for _, at := range []string{"/access/policy", "/access/policy?number=0", "/access/tests", "/access/tags", "/access/history", "/access/history?number=1", "/access?q=a"} {
		b.get(at).want(t, 403)
	}
	b.get("/access?from=bob&to=x:22").want(t, 403)
	part := b.request("GET", "/access/can?from=bob&to=x:22", nil)
	part.Header.Set("HX-Request", "true")
	b.do(part).want(t, 403)
	b.post("/access", "text", "{}").want(t, 403)
	b.post("/access/check", "text", "{}").want(t, 403)
	b.post("/access/revert", "number", "0").want(t, 403)
	if s.net.State() != before {
		t.Error("something changed")
	}
}

// Of many who have opened the page and save, one does; the others keep their text.
func TestManyEditors(t *testing.T) {
	s := newSite(t)
	b := s.browser().enter()
	_, match := b.get("/access/policy").want(t, 200).editor(t)
	var wg sync.WaitGroup
	var mu sync.Mutex // guards the following
	status := map[int]int{}
	for i := range 30 {
		wg.Go(func() {
			text := fmt.Sprintf("{} // editor %d", i)
			a := b.post("/access", "text", text, "match", match)
			mu.Lock()
			defer mu.Unlock()
			status[a.StatusCode]++
			if a.StatusCode == http.StatusConflict && !strings.Contains(a.body, text) {
				t.Errorf("%q is lost", text)
			}
		})
	}
	wg.Wait()
	if status[http.StatusSeeOther] != 1 || status[http.StatusConflict] != 29 {
		t.Errorf("%v", status)
	}
}

// What the words of rules stand for, which of them stand for nothing, how much is encrypted with
// AES alone, and how the tests come out now.
func TestRulesAreReadable(t *testing.T) {
	s := newSite(t)
	b := s.browser().enter()
	s.household()
	s.net.Member("ben")
	s.net.Member("zoe")
	for _, c := range []ops.Command[store.Group]{ops.CreateGroup{Name: "family"}, ops.EditGroup{Name: "family", Add: []string{"ben", "zoe"}}} {
		if _, err := ops.Do(t.Context(), s.net.Service, ops.Root(), c); err != nil {
			t.Fatal(err)
		}
	}
	text := `{
  "aes": ["tag:device"],
  "rules": [
    {"from": ["group:family", "group:ghosts"], "to": ["tag:sensor"], "ports": ["tcp:22", "icmp"], "aes": true},
    {"from": ["*"], "to": ["tag:device"], "ports": ["*"]},
    {"from": ["user:zoe"], "to": ["tag:boat", "tag:device"], "ports": ["udp:53"]},
  ],
  "tests": [{"src": "ben", "accept": ["greenhouse:22"], "deny": ["nobody-yet:22"]}],
  "tagOwners": {"tag:sensor": ["user:ben", "group:family", "role:operator"]},
}`
	b.post("/access", "text", text).want(t, 422, "there is no device &#34;nobody-yet&#34;")
	b.post("/access", "text", strings.Replace(text, "nobody-yet", "nas", 1)).want(t, 422, "ben reaches nas:22")
	good := strings.Replace(text, "nobody-yet:22", "anna-laptop:22", 1)
	b.post("/access", "text", good).want(t, 303)

	b.get("/access").want(t, 200, `<span class="kind">group</span> <bdi>family</bdi> <span class="count">2 people</span></summary><ul><li><bdi>ben</bdi></li><li><bdi>zoe</bdi></li></ul>`,
		"<bdi>ghosts</bdi>", "there is no group &#34;ghosts&#34;", `href="/devices?q=%23sensor" aria-label="tag sensor"><bdi>sensor</bdi>`, `class="aes">AES only</td>`, "AES for some", "AES-256-GCM is demanded of all rules to", "2 names in the policy stand")
	if page := b.get("/access?q=UDP:53").want(t, 200, "1 of 3 rules", `id="rule-3"`); strings.Contains(page.body, `id="rule-1"`) {
		t.Error("the search shows what it did not find")
	}
	b.get("/access?q=%3Cb%3E").want(t, 200, "No rule has <q><bdi>&lt;b&gt;</bdi></q> in it.")
	b.get("/access?at=99").want(t, 200, "There are no more rules.")
	b.get("/access/tags").want(t, 200, `<bdi>boat</bdi>`, "owners, admins, ", `<bdi>ben</bdi>`, "owners, admins, operators", "rules 2, 3", "this network", `<span class="kind">role</span> <bdi>operator</bdi>`)
	b.get("/access/tests").want(t, 200, "All 2 hold", "must reach", "must not reach", `href="/access/policy?line=8"`)

	// A test that held then and does not now.
	list, err := s.net.Devices(t.Context(), ops.Root(), ops.DeviceQuery{Text: "greenhouse", Limit: 1})
	if err != nil || len(list.Devices) != 1 {
		t.Fatalf("%v, %v", list, err)
	}
	b.post("/devices/"+list.Devices[0].ID.String()+"/delete", "name", "greenhouse").want(t, 303)
	b.get("/access").want(t, 200, `<a href="/access/tests?failed=1">1 test of the policy does not hold any more</a>`)
	if page := b.get("/access/tests?failed=1").want(t, 200, "1 of 2 do not hold", "there is no device &#34;greenhouse&#34;"); strings.Contains(page.body, "anna-laptop:22") {
		t.Error("tests that hold are listed among those that do not")
	}

	// An auditor reads it all and changes nothing; an operator is not told who is in a group.
	if _, err := ops.Do(t.Context(), s.net.Service, ops.Root(), ops.CreateUser{Name: "olga", Role: ops.RoleOperator}); err != nil {
		t.Fatal(err)
	}
	olga := s.browser().enterAs("olga")
	for _, at := range []string{"/access", "/access/tags", "/access/policy", "/access/history", "/access/tests"} {
		page := olga.get(at).want(t, 200)
		for _, not := range []string{"<li><bdi>zoe</bdi></li>", ">Save<", ">Revert<", ">Check<"} {
			if strings.Contains(page.body, not) {
				t.Errorf("%s for an operator has %q", at, not)
			}
		}
	}
	olga.post("/access", "text", "{}").want(t, 403)
}

// Hundreds of rules come in parts, and each is found from the answer that names it.
func TestManyRules(t *testing.T) {
	s := newSite(t)
	b := s.browser().enter()
	s.household()
	var text strings.Builder
	text.WriteString("{\"rules\": [\n")
	for i := range 450 {
		fmt.Fprintf(&text, "{\"from\": [\"user:u%d\"], \"to\": [\"tag:device\"], \"ports\": [\"tcp:%d\"]},\n", i, i+1)
	}
	text.WriteString("{\"from\": [\"user:admin\"], \"to\": [\"tag:device\"], \"ports\": [\"tcp:9000\"]}]}")
	b.post("/access", "text", text.String()).want(t, 303)
	first := b.get("/access").want(t, 200, `id="rule-200"`, `href="/access?at=200" rel="next"`, "451 rules")
	if strings.Contains(first.body, `id="rule-201"`) {
		t.Error("the page has more than its part")
	}
	b.get("/access?at=200").want(t, 200, `id="rule-201"`, `id="rule-400"`, `href="/access" rel="prev"`, `href="/access?at=400" rel="next"`)
	if last := b.get("/access?at=400").want(t, 200, `id="rule-451"`); strings.Contains(last.body, `rel="next"`) {
		t.Error("there is a page behind the last")
	}
	b.get("/access?from=admin&to=nas:9000").want(t, 200, "Yes</b>", `<a href="/access?at=400#rule-451">Rule 451 in the table</a>`)
}
