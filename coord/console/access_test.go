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
	page := b.get("/access").want(t, 200, "Nothing was set yet", "<code>user:*</code>", "<code>self</code>", "Empty: nothing was saved yet.")
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
	page = b.get("/access?done=policy").want(t, 200, "Saved and in force", "<code>user:ben</code>", "Number 1", "by <bdi>admin</bdi>", "In force")
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
	page = b.get("/access?number=1").want(t, 200, "This is number 1 of the history")
	if got, _ := page.editor(t); got != next {
		t.Errorf("the editor has %q", got)
	}
	b.get("/access?number=7").want(t, 404)
	_, now := page.editor(t)
	b.post("/access/revert", "number", "1", "match", match).want(t, 409, "since you opened it")
	b.post("/access/revert", "number", "7", "match", now).want(t, 404)
	b.post("/access/revert", "number", "1", "match", now).want(t, 303)
	if p := s.policy(); p.Text != next || p.Number != 3 {
		t.Errorf("%+v", p)
	}
	b.get("/access?number=0").want(t, 200, "This is the policy that a network starts with.").editor(t)

	// The question.
	b.get("/access?from=ben&to=greenhouse:22").want(t, 200, "Yes</b>, by rule 2 in line 5", "greenhouse is offline: that does not change the answer.")
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
	b.get("/access").want(t, 200)
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
	b.get("/access?number=0").want(t, 403)
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
	_, match := b.get("/access").want(t, 200).editor(t)
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
