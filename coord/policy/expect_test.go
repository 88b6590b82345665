package policy

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// world is a network by heart.
type world struct {
	users   []string
	devices map[string]Subject
	err     error
}

func (w world) User(name string) (Subject, bool, error) {
	return Subject{User: name}, slices.Contains(w.users, name), w.err
}

func (w world) Device(word string) (Subject, bool, error) {
	s, ok := w.devices[word]
	return s, ok, w.err
}

func (w world) Group(name string) (bool, error) { return name == "known", w.err }

func (w world) Tagged(tag string) (list []Subject, err error) {
	for _, name := range slices.Sorted(func(yield func(string) bool) {
		for name := range w.devices {
			if !yield(name) {
				return
			}
		}
	}) {
		if slices.Contains(w.devices[name].Tags, tag) {
			list = append(list, w.devices[name])
		}
	}
	return list, w.err
}

func household() world {
	return world{users: []string{"alice", "bob", "nas"}, devices: map[string]Subject{
		"laptop": {User: "alice"},
		"cam":    {User: "alice", Tags: []string{"camera"}},
		"door":   {User: "bob", Tags: []string{"camera", "door"}},
		"nas":    {User: "bob", Tags: []string{"storage"}},
	}}
}

func TestFailures(t *testing.T) {
	rules := `"rules": [{"from": ["user:*"], "to": ["self"], "ports": ["*"]}, {"from": ["user:bob"], "to": ["tag:camera"], "ports": ["tcp:443"]}]`
	for _, c := range []struct{ test, want string }{
		{`{"src": "alice", "accept": ["cam:22", "cam:53/udp", "cam/icmp"], "deny": ["door:22"]}`, ""},
		{`{"src": "bob", "accept": ["tag:camera:443"], "deny": ["cam:22"]}`, ""},
		{`{"src": "user:bob", "proto": "udp", "deny": ["cam:443"], "accept": ["cam:443/tcp"]}`, ""},
		{`{"src": "laptop", "accept": ["cam:22"]}`, ""},
		{`{"src": "cam", "deny": ["laptop:22", "tag:camera:22", "user:bob:22"]}`, ""},
		{`{"src": "group:ops", "deny": ["cam:22"]}`, ""},
		{`{"src": "tag:nobody", "deny": ["tag:nothing:22"]}`, ""},
		{`{"src": "alice", "accept": ["door:22"]}`, `line 3, column 31: test 1: alice does not reach door:22: no rule allows it`},
		{`{"src": "bob", "accept": ["cam:22"]}`, `line 3, column 29: test 1: bob does not reach cam:22: no rule allows it; what the rules let through is tcp:443`},
		{`{"src": "bob", "deny": ["cam:443"]}`, `line 3, column 27: test 1: bob reaches cam:443: by rule 2 in line 2: {"from":["user:bob"],"to":["tag:camera"],"ports":["tcp:443"]}`},
		{`{"src": "alice", "accept": ["tag:camera:22"]}`, `line 3, column 31: test 1: alice does not reach tag:camera:22 (of bob, tags camera, door): no rule allows it`},
		{`{"src": "carol", "deny": ["cam:22"]}`, `line 3, column 3: test 1: there is no person and no device "carol"`},
		{`{"src": "user:laptop", "deny": ["cam:22"]}`, `line 3, column 3: test 1: there is no person "laptop"`},
		{`{"src": "device:alice", "deny": ["cam:22"]}`, `line 3, column 3: test 1: there is no device "alice"`},
		{`{"src": "nas", "deny": ["cam:22"]}`, `line 3, column 3: test 1: nas is a person and a device: say user:nas or device:nas`},
		{`{"src": "alice", "deny": ["attic:22"]}`, `line 3, column 29: test 1: there is no device "attic"`},
	} {
		p := mustParse(t, "{\n"+rules+", \"tests\": [\n  "+c.test+"\n]}")
		failed, err := p.Failures(household())
		if err != nil {
			t.Errorf("%s: %v", c.test, err)
		}
		got := ""
		for _, f := range failed {
			got += f.String()
		}
		if got != c.want {
			t.Errorf("%s\ngot  %s\nwant %s", c.test, got, c.want)
		}
	}
	broken := household()
	broken.err = errors.New("no disk")
	p := mustParse(t, `{"rules": [{"from":["user:alice"],"to":["tag:x"],"ports":["*"]}], "tests": [{"src": "alice", "deny": ["cam:22"]}]}`)
	if _, err := p.Failures(broken); !errors.Is(err, broken.err) {
		t.Errorf("%v", err)
	}
	if _, err := p.Unknown(broken); !errors.Is(err, broken.err) {
		t.Errorf("%v", err)
	}
}

// Tests over very many pairs are refused in place of holding the server up.
func TestPairs(t *testing.T) {
	w := world{devices: map[string]Subject{}}
	for i := range 1001 {
		w.devices[fmt.Sprint(i)] = Subject{User: fmt.Sprint(i), Tags: []string{"x"}}
	}
	p := mustParse(t, `{"tests": [{"src": "tag:x", "deny": ["tag:x:22"]}]}`)
	var e *Error
	if _, err := p.Failures(w); !errors.As(err, &e) || !strings.Contains(err.Error(), "pairs of devices") {
		t.Errorf("%v", err)
	}
}

func TestUnknown(t *testing.T) {
	p := mustParse(t, `{"rules": [
  {"from": ["user:alice", "user:carol", "user:*"], "to": ["self"], "ports": ["*"]},
  {"from": ["user:carol", "group:ops", "*"], "to": ["tag:camera", "tag:boat"], "ports": ["*"]},
]}`)
	list, err := p.Unknown(household())
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, w := range list {
		got = append(got, w.String())
	}
	want := []string{
		`line 2, column 27: there is no person "carol": until there is, this selects nobody`,
		`line 3, column 27: there is no group "ops": until there is, this selects nobody`,
		`line 3, column 67: no device carries the tag "boat": until one does, this selects nothing`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}

// The example in the README is a policy, and its tests hold in the network that the text
// around it describes.
func TestReadme(t *testing.T) {
	b, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	section := string(b)[strings.Index(string(b), "### Who may reach whom"):]
	block := regexp.MustCompile(`(?s)\n    \{\n.*?\n    \}\n`).FindString(section)
	if block == "" {
		t.Fatal("there is no policy in the section")
	}
	p := mustParse(t, strings.ReplaceAll(block, "\n    ", "\n"))
	w := world{users: []string{"anna", "ben"}, devices: map[string]Subject{
		"kitchen-pi": {User: "anna", Tags: []string{"device"}}, "nas": {User: "anna", Tags: []string{"storage"}}, "porch-cam": {User: "anna", Tags: []string{"camera"}},
	}}
	failed, err := p.Failures(w)
	if err != nil || len(failed) > 0 || len(p.Rules) < 2 || len(p.Tests) < 2 {
		t.Errorf("%d rules, %d tests: %v, %v", len(p.Rules), len(p.Tests), failed, err)
	}
	if unknown, err := p.Unknown(w); err != nil || len(unknown) > 0 {
		t.Errorf("%v, %v", unknown, err)
	}
}

// What tests compare is a million pairs at most, while nobody else writes: what costs
// something is found once for each subject, and not for each pair.
func TestPairsCostNothing(t *testing.T) {
	w := world{devices: map[string]Subject{}}
	for i := range 200 {
		w.devices[fmt.Sprint("camera", i)] = Subject{Tags: []string{"camera", fmt.Sprintf("room%d", i)}}
	}
	p := mustParse(t, `{"rules": [{"from": ["tag:camera"], "to": ["tag:camera"], "ports": ["tcp:443"]}],
		"tests": [{"src": "tag:camera", "accept": ["tag:camera:443"], "deny": ["tag:camera:22"]}]}`)
	allocs := testing.AllocsPerRun(1, func() {
		if failed, err := p.Failures(w); err != nil || len(failed) > 0 {
			t.Fatal(failed, err)
		}
	})
	if most := float64(40 * len(w.devices)); allocs > most {
		t.Fatalf("%d pairs took %.0f allocations, at most %.0f", 2*len(w.devices)*len(w.devices), allocs, most)
	}
}

// However many tests are of nobody, not all of them are told.
func TestFailuresAreBounded(t *testing.T) {
	p := mustParse(t, `{"tests": [`+strings.Repeat(`{"src": "nobody", "accept": ["nothing:1"]},`, maxTests)+`]}`)
	if failed, err := p.Failures(household()); err != nil || len(failed) != maxProblems {
		t.Errorf("%d failures, %v", len(failed), err)
	}
}

// All targets of the tests come with how they came out, and the names that stand for nothing by
// themselves.
func TestResults(t *testing.T) {
	p := mustParse(t, `{"rules": [
  {"from": ["user:alice", "user:carol"], "to": ["tag:camera", "tag:boat"], "ports": ["tcp:22"]},
  {"from": ["group:ops"], "to": ["*"], "ports": ["icmp"]},
], "tests": [
  {"src": "alice", "accept": ["cam:22", "nas:22"],
   "deny": ["door:22"]},
  {"src": "zoe", "deny": ["cam:22", "door/icmp"]},
]}`)
	got, err := p.Results(household())
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, r := range got {
		lines = append(lines, fmt.Sprintf("%d %d %s %s %t %s", r.Test, r.Line, r.Src, r.Target, r.Accept, r.Failed))
	}
	want := []string{
		"1 5 alice cam:22 true ",
		"1 5 alice nas:22 true alice does not reach nas:22: no rule allows it",
		`1 6 alice door:22 false alice reaches door:22: by rule 1 in line 2: {"from":["user:alice","user:carol"],"to":["tag:camera","tag:boat"],"ports":["tcp:22"]}`,
		`2 7 zoe cam:22 false there is no person and no device "zoe"`,
		`2 7 zoe door/icmp false there is no person and no device "zoe"`,
	}
	if !slices.Equal(lines, want) {
		t.Errorf("%s", strings.Join(lines, "\n"))
	}
	words, err := p.Missing(household())
	if err != nil || len(words) != 3 || words["user:carol"] == "" || words["tag:boat"] == "" || words["group:ops"] == "" {
		t.Errorf("%v, %v", words, err)
	}
	broken := household()
	broken.err = errors.New("no disk")
	if _, err := p.Results(broken); err == nil {
		t.Error("results without a network")
	}
	if _, err := p.Missing(broken); err == nil {
		t.Error("names without a network")
	}
}
