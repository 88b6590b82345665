package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestPolicyVerbs(t *testing.T) {
	data, dir := newData(t), t.TempDir()
	t.Setenv("WEFT_DATA", data)
	file := func(name, text string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	if code, out, errs := verb(t, "policy", "show"); code != 0 || !strings.Contains(out, `"user:*"`) || !strings.Contains(errs, "starts with") {
		t.Fatalf("the starting policy: exit %d\n%s%s", code, out, errs)
	}
	text := "{\"rules\": [\n  {\"from\": [\"tag:phone\"], \"to\": [\"tag:device\"], \"ports\": [\"tcp:22\"]}\n]}\n"
	good := file("good", text)
	bad := file("bad", "{\"rules\": [\n  {\"from\": [\"nonsense\"], \"to\": [\"*\"], \"ports\": [\"*\"]}\n]}\n")
	for _, c := range []struct {
		args string
		code int
		want string
	}{
		{"policy check " + good, 0, "is good"},
		{"policy check " + bad, 2, "rule 1: "},
		{"policy apply " + bad, 2, "rule 1: "},
		{"policy check " + file("unknown", `{"rule":[]}`), 2, `unknown field "rule"`},
		{"policy check " + file("half", "{\"rules\":\n["), 2, "ends too early"},
		{"policy check " + file("kind", "{\"rules\":\n\n3}"), 2, "line 3: number cannot stand here"},
		{"policy check " + file("long", strings.Repeat(" ", 300_000)), 2, "longer than"},
		{"policy apply " + good, 0, "the policy is in force"},
	} {
		code, out, errs := verb(t, strings.Fields(c.args)...)
		if code != c.code || out != "" || !strings.Contains(errs, c.want) || strings.Count(errs, "\n") != 1 {
			t.Errorf("%s: exit %d, want %d %q\n%s%s", c.args, code, c.code, c.want, out, errs)
		}
	}
	if code, out, _ := verb(t, "policy", "show"); code != 0 || out != text {
		t.Errorf("exit %d: %q, want it as it was written", code, out)
	}
	if code, out, _ := verb(t, "audit", "list", "--op", "policy.", "--json"); code != 0 || strings.Count(out, `"op": "policy.set"`) != 1 || !strings.Contains(out, "tag:phone") {
		t.Errorf("exit %d: %s", code, out)
	}
}
