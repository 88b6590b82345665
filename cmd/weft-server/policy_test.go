package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"weft/coord/policy"
)

// policies is a data directory with two devices, and files with policies in them.
type policies struct {
	t   *testing.T
	dir string
}

func newPolicies(t *testing.T) *policies {
	data := newData(t)
	t.Setenv("WEFT_DATA", data)
	t.Setenv("VISUAL", "")
	addDevices(t, data, "kitchen-pi", "nas")
	return &policies{t, t.TempDir()}
}

func (p *policies) file(name, text string) string {
	p.t.Helper()
	path := filepath.Join(p.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o700); err != nil {
		p.t.Fatal(err)
	}
	return path
}

func (p *policies) inForce() string {
	p.t.Helper()
	code, out, errs := verb(p.t, "policy", "show")
	if code != 0 {
		p.t.Fatalf("exit %d: %s", code, errs)
	}
	return out
}

const devicesOnly = "// as typed\n{\"rules\": [\n  {\"from\": [\"user:admin\"], \"to\": [\"tag:device\"], \"ports\": [\"tcp:22\"]}, // é\n],\n \"tests\": [{\"src\": \"admin\", \"accept\": [\"nas:22\"], \"deny\": [\"nas:80\"]}]}\n"

func TestPolicyVerbs(t *testing.T) {
	p := newPolicies(t)
	if code, out, errs := verb(t, "policy", "show"); code != 0 || out != policy.StartingText || !strings.Contains(errs, "starts with") {
		t.Fatalf("the starting policy: exit %d\n%s%s", code, out, errs)
	}
	good := p.file("good", devicesOnly)
	bad := p.file("bad", "{\"rules\": [\n  {\"from\": [\"nonsense\"], \"to\": [\"*\"], \"ports\": [\"*\"]}\n]}\n")
	for _, c := range []struct {
		args string
		code int
		want string
	}{
		{"policy check " + good, 0, "is good (1 rule, 1 test passed)"},
		{"policy check " + bad, 2, "bad:2:13: rule 1: from \"nonsense\": want *"},
		{"policy apply " + bad, 2, "bad:2:13: rule 1: "},
		{"policy diff " + bad, 2, "bad:2:13: rule 1: "},
		{"policy check " + p.file("unknown", `{"rule":[]}`), 2, `unknown:1:2: unknown field "rule"`},
		{"policy check " + p.file("half", "{\"rules\":\n["), 2, "half:2:1: it ends too early"},
		{"policy check " + p.file("kind", "{\"rules\":\n\n3}"), 2, "kind:3:1: a number is not possible here"},
		{"policy check " + p.file("long", strings.Repeat(" ", 300_000)), 2, "longer than"},
		{"policy check " + p.file("binary", "{} // \xff\x00"), 2, "binary:1:7: this is not Unicode"},
		{"policy apply " + p.file("failing", strings.Replace(devicesOnly, "nas:80", "nas:22", 1)), 2, "failing:5:60: test 1: admin reaches nas:22: by rule 1 in line 3: {"},
		{"policy apply " + good, 0, "the policy is in force, as number 1"},
		{"policy apply " + good, 0, "this policy is in force already"},
		{"policy apply --match 0123 " + good, 1, "it was changed since you read it"},
	} {
		code, out, errs := verb(t, strings.Fields(c.args)...)
		if code != c.code || out != "" || !strings.Contains(errs, c.want) || strings.Count(errs, "\n") != 1 {
			t.Errorf("%s: exit %d, want %d %q\n%s%s", c.args, code, c.code, c.want, out, errs)
		}
	}
	if out := p.inForce(); out != devicesOnly {
		t.Errorf("%q, want it as it was written", out)
	}
	if code, out, _ := verb(t, "audit", "list", "--op", "policy.", "--json"); code != 0 || strings.Count(out, `"op": "policy.set"`) != 1 || !strings.Contains(out, "tag:device") {
		t.Errorf("exit %d: %s", code, out)
	}
	// Several mistakes are told at once; a name that nothing has is no mistake.
	code, _, errs := verb(t, "policy", "check", p.file("two", "{\"rules\": [\n{},\n{\"to\": 3}]}"))
	if code != 2 || strings.Count(errs, "\n") != 3 || !strings.Contains(errs, "two:3:8: ") || !strings.Contains(errs, "two: 2 mistakes; nothing was changed") {
		t.Errorf("exit %d: %s", code, errs)
	}
	root, said := newRoot(), new(strings.Builder)
	root.SetArgs([]string{"policy", "check", "-"})
	root.SetIn(strings.NewReader("{\"rules\": [\n{},\n{\"to\": 3}]}"))
	root.SetErr(said)
	if err := root.Execute(); err == nil || err.Error() != "standard input: 2 mistakes; nothing was changed" || !strings.Contains(said.String(), "standard input:3:8: ") {
		t.Errorf("%v\n%s", err, said)
	}
	code, _, errs = verb(t, "policy", "check", p.file("nobody", `{"rules": [{"from": ["user:eve"], "to": ["tag:boat"], "ports": ["*"]}]}`))
	if code != 0 || !strings.Contains(errs, `nobody:1:22: warning: there is no person "eve"`) || !strings.Contains(errs, `warning: no device carries the tag "boat"`) {
		t.Errorf("exit %d: %s", code, errs)
	}
}

func TestPolicyDiff(t *testing.T) {
	p := newPolicies(t)
	code, out, errs := verb(t, "policy", "diff", p.file("a", devicesOnly))
	want := "who loses what:\n  - admin → kitchen-pi, nas: tcp:1-21, tcp:23-65535, udp, icmp, other protocols\n"
	if code != 0 || errs != "" || out != want {
		t.Errorf("exit %d: %s%s", code, out, errs)
	}
	code, out, _ = verb(t, "policy", "diff", p.file("b", `{"rules":[{"from":["user:*","user:admin"],"to":["self"],"ports":["*"]},{"from":["tag:device"],"to":["*"],"ports":["icmp","udp:53"]}]}`))
	if code != 0 || out != "who gains what:\n  + kitchen-pi, nas → kitchen-pi, nas: udp:53, icmp\n" {
		// Devices of the same person reach each other by "self" when that one acts; these
		// carry tags and do not.
		t.Errorf("exit %d: %s", code, out)
	}
	code, out, _ = verb(t, "policy", "diff", p.file("d", `{"rules":[{"from":["user:*"],"to":["self"],"ports":["*"]}],"tagOwners":{"tag:device":["user:anna","role:operator"],"tag:x":[]}}`))
	if code != 0 || out != "nobody gains or loses anything\nwho may give tags:\n  tag:device: user:anna, role:operator, before nobody else\n  tag:x: nobody else, before nobody else\n" {
		t.Errorf("exit %d: %s", code, out)
	}
	code, out, _ = verb(t, "policy", "diff", p.file("e", `{"rules":[{"from":["user:*"],"to":["self"],"ports":["*"]}],"aes":["tag:device"]}`))
	if code != 0 || out != "what would need AES:\n  + admin → kitchen-pi, nas: everything\n" {
		t.Errorf("exit %d: %s", code, out)
	}
	if code, out, _ := verb(t, "policy", "diff", p.file("c", policy.StartingText+"// and a comment\n")); code != 0 || out != "nobody gains or loses anything\n" {
		t.Errorf("exit %d: %s", code, out)
	}
}

func TestPolicyHistory(t *testing.T) {
	p := newPolicies(t)
	none := p.file("none", `{"rules":[]}`)
	for _, args := range [][]string{{"policy", "apply", p.file("a", devicesOnly)}, {"policy", "apply", none}} {
		if code, _, errs := verb(t, args...); code != 0 {
			t.Fatal(errs)
		}
	}
	code, out, _ := verb(t, "policy", "history")
	if lines := strings.Split(out, "\n"); code != 0 || len(lines) != 5 || !regexp.MustCompile(`^2 +20\d\d-\d\d-\d\d \d\d:\d\d +root +cli +12$`).MatchString(lines[1]) || !strings.HasPrefix(lines[2], "1 ") {
		t.Errorf("exit %d: %s", code, out)
	}
	if _, out, _ := verb(t, "policy", "show", "1"); out != devicesOnly {
		t.Errorf("%q", out)
	}
	code, _, errs := verb(t, "policy", "revert", "1")
	if code != 2 || !strings.Contains(errs, "+ admin → kitchen-pi, nas: tcp:22") || !strings.Contains(errs, "use --yes") || p.inForce() == devicesOnly {
		t.Errorf("exit %d: %s", code, errs)
	}
	code, _, errs = verb(t, "policy", "revert", "1", "--yes")
	if code != 0 || !strings.Contains(errs, "in force, as number 3") || p.inForce() != devicesOnly {
		t.Errorf("exit %d: %s", code, errs)
	}
	if code, out, _ := verb(t, "audit", "list", "--op", "policy.revert"); code != 0 || strings.Count(out, "policy.revert") != 1 {
		t.Errorf("exit %d: %s", code, out)
	}
	if code, _, errs := verb(t, "policy", "revert", "0", "--yes"); code != 0 || p.inForce() != policy.StartingText {
		t.Errorf("exit %d: %s", code, errs)
	}
}

func TestCan(t *testing.T) {
	p := newPolicies(t)
	verb(t, "users", "create", "nas")
	if code, _, errs := verb(t, "policy", "apply", p.file("a", devicesOnly)); code != 0 {
		t.Fatal(errs)
	}
	for _, c := range []struct {
		from, to, want, note string
	}{
		{"admin", "nas:22", `yes: by rule 1 in line 3: {"from":["user:admin"],"to":["tag:device"],"ports":["tcp:22"]}`, "admin has no device without tags: devices with tags act as their tags"},
		{"user:admin", "kitchen-pi.weft.internal:22", "yes: by rule 1 ", "admin has no device without tags"},
		{"admin", "nas:80", "no: no rule allows it; what the rules let through is tcp:22", ""},
		{"admin", "nas:22/udp", "no: no rule allows it", ""},
		{"admin", "nas/icmp", "no: no rule allows it", ""},
		{"kitchen-pi", "nas:22", "no: no rule allows it\n", ""},
		{"device:nas", "device:kitchen-pi:22", "no: ", ""},
		{"user:nas", "kitchen-pi:22", "no: ", ""},
	} {
		code, out, errs := verb(t, "can", c.from, c.to)
		if code != 0 || !strings.HasPrefix(out, c.want) || !strings.Contains(errs, c.note) {
			t.Errorf("%s %s: exit %d: %s%s", c.from, c.to, code, out, errs)
		}
	}
	if code, _, errs := verb(t, "can", "nas", "kitchen-pi:22"); code != 2 || !strings.Contains(errs, "say user:nas or device:nas") {
		t.Errorf("exit %d: %s", code, errs)
	}
}

func TestReach(t *testing.T) {
	p := newPolicies(t)
	if code, _, errs := verb(t, "policy", "apply", p.file("a", devicesOnly)); code != 0 {
		t.Fatal(errs)
	}
	for args, want := range map[string][]string{
		"reach admin":           {"DEVICES", "kitchen-pi, nas", "tcp:22", " 1\n"},
		"reach --to nas":        {"WHO", "admin", "tcp:22", " 1\n"},
		"reach kitchen-pi":      {"nothing\n"},
		"reach user:admin --to": {},
	} {
		code, out, errs := verb(t, strings.Fields(args)...)
		if (code == 0) != (len(want) > 0) {
			t.Errorf("%s: exit %d: %s", args, code, errs)
		}
		for _, w := range want {
			if !strings.Contains(out, w) {
				t.Errorf("%s: %q, want %q", args, out, w)
			}
		}
	}
}

func TestPolicyEdit(t *testing.T) {
	p := newPolicies(t)
	p.file("new", devicesOnly)
	kept := regexp.MustCompile(`your text is saved in (\S+); put it into force with: weft-server policy apply (\S+)`)
	edit := func(editor string, args ...string) (code int, errs string) {
		t.Helper()
		t.Setenv("EDITOR", editor)
		code, _, errs = verb(t, append([]string{"policy", "edit"}, args...)...)
		return code, errs
	}
	keptText := func(errs string) string {
		t.Helper()
		m := kept.FindStringSubmatch(errs)
		if m == nil {
			t.Fatalf("nothing is kept: %s", errs)
		}
		b, err := os.ReadFile(m[1])
		if err != nil {
			t.Fatal(err)
		}
		os.RemoveAll(filepath.Dir(m[1]))
		return string(b)
	}
	copies := "cp " + filepath.Join(p.dir, "new")
	fileOf := filepath.Join(p.dir, "file")
	see := p.file("see", "#!/bin/sh\nstat -c %a \"$1\" >"+fileOf+"\ncp \"$1\" "+fileOf+".text\necho \"$1\" >"+fileOf+".name\n")

	// Without a change nothing is done, and the file goes. It is nobody else's to read.
	if code, errs := edit(see); code != 0 || !strings.Contains(errs, "you changed nothing") {
		t.Errorf("exit %d: %s", code, errs)
	}
	mode, _ := os.ReadFile(fileOf)
	text, _ := os.ReadFile(fileOf + ".text")
	name, _ := os.ReadFile(fileOf + ".name")
	if _, err := os.Stat(strings.TrimSpace(string(name))); string(mode) != "600\n" || string(text) != policy.StartingText || !os.IsNotExist(err) {
		t.Errorf("mode %s, text %q, %v", mode, text, err)
	}
	// Whatever goes wrong, the text is kept.
	if code, errs := edit(copies); code != 2 || !strings.Contains(errs, "use --yes") || !strings.Contains(errs, "- admin → kitchen-pi, nas") || keptText(errs) != devicesOnly {
		t.Errorf("exit %d: %s", code, errs)
	}
	if code, errs := edit("echo '{' >"); code != 2 || !strings.Contains(errs, "policy.hujson:1:1: it ends too early") || keptText(errs) != "{\n" {
		t.Errorf("exit %d: %s", code, errs)
	}
	if code, errs := edit("true; : >"); code != 2 || !strings.Contains(errs, "it is empty") || keptText(errs) != "" {
		t.Errorf("exit %d: %s", code, errs)
	}
	if code, errs := edit(p.file("crash", "#!/bin/sh\necho typed >\"$1\"\nexit 3\n")); code != 1 || !strings.Contains(errs, "the editor ") || !strings.Contains(errs, "exit status 3") || keptText(errs) != "typed\n" {
		t.Errorf("exit %d: %s", code, errs)
	}
	if code, errs := edit("false"); code != 1 || kept.MatchString(errs) {
		t.Errorf("exit %d: %s", code, errs)
	}
	if p.inForce() != policy.StartingText {
		t.Error("the policy was changed")
	}
	// VISUAL comes first, with arguments.
	t.Setenv("VISUAL", "env X=1 "+copies)
	if code, errs := edit("false", "--yes"); code != 0 || !strings.Contains(errs, "in force, as number 1") || p.inForce() != devicesOnly {
		t.Errorf("exit %d: %s", code, errs)
	}
	t.Setenv("VISUAL", "")

	// Somebody else is quicker.
	begun, end := filepath.Join(p.dir, "begun"), filepath.Join(p.dir, "end")
	slow := p.file("slow", fmt.Sprintf("#!/bin/sh\necho '{} // mine' >\"$1\"\n: >%s\nwhile [ ! -e %s ]; do sleep 0.05; done\n", begun, end))
	t.Setenv("EDITOR", slow)
	done := make(chan string)
	go func() {
		var out, errs strings.Builder
		code := run([]string{"policy", "edit", "--yes"}, &out, &errs)
		done <- fmt.Sprintf("exit %d: %s", code, errs.String())
	}()
	for {
		if _, err := os.Stat(begun); err == nil {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if code, _, errs := verb(t, "policy", "apply", p.file("theirs", "{} // theirs")); code != 0 { // the editor does not hold the server up
		t.Error(errs)
	}
	p.file("end", "")
	if errs := <-done; !strings.HasPrefix(errs, "exit 1: ") || !strings.Contains(errs, "somebody else changed the policy since you began") || keptText(errs) != "{} // mine\n" {
		t.Error(errs)
	}
	if p.inForce() != "{} // theirs\n" {
		t.Errorf("%q is in force", p.inForce())
	}
}

// The exit code of can is an answer only with --quiet, which prints nothing.
func TestCanQuiet(t *testing.T) {
	newPolicies(t)
	for _, c := range []struct {
		args []string
		code int
		out  string
	}{
		{[]string{"admin", "nas:22"}, 0, "yes: "},
		{[]string{"nas", "kitchen-pi:22"}, 0, "no: "},
		{[]string{"--quiet", "admin", "nas:22"}, 0, ""},
		{[]string{"-q", "nas", "kitchen-pi:22"}, 6, ""},
	} {
		code, out, errs := verb(t, append([]string{"can"}, c.args...)...)
		if code != c.code || !strings.HasPrefix(out, c.out) || c.out == "" && out+errs != "" {
			t.Errorf("can %v: exit %d, %q, %q; want exit %d, %q", c.args, code, out, errs, c.code, c.out)
		}
	}
}
