package webapi_test

import (
	"encoding/json"
	"strings"
	"testing"

	"weft/coord/ops"
	"weft/coord/webapi"
)

// TestHints: whoever names what does not exist is told where to see what there is,
// whatever the text of the error begins with.
func TestHints(t *testing.T) {
	s := openSite(t, ops.Options{})
	s.join("pi")
	for _, c := range []struct{ method, path, body, hint string }{
		{"GET", "/devices/nosuch", "", "weft-server devices list"},
		{"GET", "/devices/%0Ano%20key", "", "weft-server devices list"},
		{"DELETE", "/devices/nosuch", "", "weft-server devices list"},
		{"POST", "/devices/pi/replace", `{"by":"nosuch"}`, "weft-server devices list"},
		{"GET", "/keys/nosuch", "", "weft-server keys list"},
		{"POST", "/keys/nosuch/revoke", "", "weft-server keys list"},
		{"POST", "/keys", `{"user":"nosuch"}`, "weft-server users list"},
		{"GET", "/users/nosuch", "", "weft-server users list"},
		{"PATCH", "/users/nosuch", `{"role":"member"}`, "weft-server users list"},
		{"GET", "/tokens?user=nosuch", "", "weft-server users list"},
		{"POST", "/tokens", `{"user":"nosuch"}`, "weft-server users list"},
		{"POST", "/tokens/nosuch/revoke", "", "weft-server tokens list"},
		{"DELETE", "/relays/nosuch", "", "weft-server relays list"},
		{"GET", "/webhooks/nosuch", "", "weft-server webhooks list"},
		{"PATCH", "/webhooks/nosuch", `{"enabled":false}`, "weft-server webhooks list"},
		{"GET", "/policy/history/77", "", "weft-server policy history"},
		{"GET", "/policy/history/old", "", "weft-server policy history"},
		{"POST", "/policy/revert", `{"number":77}`, "weft-server policy history"},
		{"GET", "/policy/can?from=nosuch&to=pi:80", "", "weft-server users list, and weft-server devices list"},
		{"GET", "/policy/can?from=user:nosuch&to=pi:80", "", "weft-server users list"},
		{"GET", "/policy/can?from=admin&to=nosuch:80", "", "weft-server devices list"},
		{"GET", "/oidc-providers/nosuch", "", "weft-server oidc list"},
		{"PATCH", "/oidc-providers/nosuch", `{"title":"x"}`, "weft-server oidc list"},
		{"DELETE", "/oidc-providers/nosuch", "", "weft-server oidc list"},
		{"PATCH", "/dns", `{"remove_record":{"name":"nosuch"}}`, "weft-server dns records list"},
		{"PATCH", "/dns", `{"remove_route":"no.such"}`, "weft-server dns routes list"},
		{"PATCH", "/dns", `{"remove_alias":"nosuch"}`, "weft-server dns aliases list"},
	} {
		status, _, b := s.ask(ops.Root(), c.method, "/api/v1"+c.path, c.body, "Content-Type", "application/json")
		var p webapi.Problem
		if err := json.Unmarshal(b, &p); err != nil || status != 404 || p.Code != "not_found" || p.Hint != "see: "+c.hint {
			t.Errorf("%s %s: %d %s, want the hint: see: %s", c.method, c.path, status, b, c.hint)
		}
	}
}

// TestOnceIsDocumented: the operations that take an idempotency key list it, all others
// are said not to.
func TestOnceIsDocumented(t *testing.T) {
	s := openSite(t, ops.Options{})
	_, _, b := s.ask(ops.Root(), "GET", webapi.Document, "")
	var doc struct{ Info struct{ Description string } }
	if err := json.Unmarshal(b, &doc); err != nil || !strings.Contains(doc.Info.Description, "Idempotency-Key; where an operation does not list that header, it has no effect") {
		t.Errorf("%v: %s", err, doc.Info.Description)
	}
	list, _ := s.document()
	taken := 0
	for _, d := range list {
		for _, p := range d.Parameters {
			if p.Name != "Idempotency-Key" {
				continue
			}
			if taken++; d.method != "POST" {
				t.Errorf("%s lists a key, and takes none", d.ID)
			}
		}
	}
	if taken == 0 {
		t.Error("no operation lists the key")
	}
}
