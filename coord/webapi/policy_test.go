package webapi_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"

	"weft/coord/ops"
	"weft/coord/policy"
	"weft/coord/store"
	"weft/coord/webapi"
)

// What is wrong with a policy comes as a list, by line and column, and changes nothing; and
// what is merely large or odd goes in as it is.
func TestPolicyTexts(t *testing.T) {
	s := filled(t, ops.Options{})
	c := s.client()
	before, err := c.Policy(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	records := lastRecord(t, c)
	for _, bad := range []struct {
		text   string
		status int
		says   string
		errors int
	}{
		{strings.Repeat("x", policy.MaxText+1), 422, "262145 bytes, at most 262144", 1},
		{strings.Repeat("[", policy.MaxText), 422, "nested deeper than 8", 1},
		{`{"rules":[],"rules":[]}`, 422, `line 1, column 13: the field "rules" occurs twice`, 1},
		{"{\"rules\":[\n{},{}]}", 422, "(and 1 more)", 2},
		{"{} /*", 422, "this comment is not closed", 1},
		{"{} // \x1b[31m", 422, "U+001B", 1},
		{"{} // \u202e", 422, "U+202E", 1},
		{"{} // \x00", 400, "NUL", 0},
		{`{"tests":[{"src":"admin","deny":["a:22"]}]}`, 200, "", 0}, // it has no rule
		{`{"rules":[{"from":["*"],"to":["*"],"ports":["*"]}],"tests":[{"src":"admin","deny":["a:22"]}]}`, 422, "admin reaches a:22: by rule 1", 1},
	} {
		body, err := json.Marshal(webapi.NewPolicy{Text: bad.text})
		if err != nil {
			t.Fatal(err)
		}
		for _, at := range []struct{ method, path string }{{"PUT", "/api/v1/policy"}, {"POST", "/api/v1/policy/check"}} {
			if bad.status == 200 && at.method == "PUT" {
				continue
			}
			status, _, b := s.ask(ops.Root(), at.method, at.path, string(body))
			var p webapi.Problem
			if json.Unmarshal(b, &p); status != bad.status || !strings.Contains(p.Detail, bad.says) || len(p.Errors) != bad.errors {
				t.Errorf("%s %.40q: %d %.300s", at.path, bad.text, status, b)
			}
		}
	}
	if now, err := c.Policy(t.Context()); err != nil || now != before || lastRecord(t, c) != records {
		t.Errorf("%+v, %v", now, err)
	}
	// The largest one is longer on the way, where quotes and line ends are two bytes.
	line := "// \"<>&\t\"\n"
	large := "{\n" + strings.Repeat(line, (policy.MaxText-3)/len(line)) + "}"
	if p, err := c.SetPolicy(t.Context(), large, []string{before.Revision}); err != nil || p.Text != large {
		t.Errorf("%d bytes: %v", len(large), err)
	}
	if p, err := c.Policy(t.Context()); err != nil || p.Text != large {
		t.Errorf("%d bytes came back, %v", len(p.Text), err)
	}
	var problem *webapi.Problem
	if _, err := c.SetPolicy(t.Context(), "{", nil); !errors.As(err, &problem) || !errors.Is(err, ops.ErrInvalid) || len(problem.Errors) != 1 || problem.Errors[0].Line != 1 {
		t.Errorf("%v", err)
	}
	// The history by number, and by nothing else.
	for path, want := range map[string]int{"0": 200, "1": 200, "2": 200, "3": 404, "-1": 404, "x": 404, "1e0": 404, "99999999999999999999": 404, "0x1": 404} {
		if status, _, b := s.ask(ops.Root(), "GET", "/api/v1/policy/history/"+path, ""); status != want {
			t.Errorf("number %s: %d %.100s", path, status, b)
		}
	}
	status, _, _ := s.ask(ops.Root(), "POST", "/api/v1/policy/revert", `{"number":1}`, "If-Match", `"`+before.Revision+`"`)
	if status != http.StatusPreconditionFailed {
		t.Errorf("%d", status)
	}
	status, h, _ := s.ask(ops.Root(), "POST", "/api/v1/policy/revert", `{"number":1}`)
	if now, err := c.Policy(t.Context()); err != nil || status != http.StatusOK || now.Text != before.Text || h.Get("ETag") != `"`+now.Revision+`"` || now.Number != 3 {
		t.Errorf("%d: %+v, %v", status, now, err)
	}
	list, err := c.PolicyHistory(t.Context())
	if err != nil || !slices.IsSortedFunc(list, func(a, b store.PolicyRevision) int { return b.Number - a.Number }) || len(list) != 3 {
		t.Errorf("%+v, %v", list, err)
	}
}
