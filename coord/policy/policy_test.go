package policy

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestStarting(t *testing.T) {
	p := Starting()
	laptop := Subject{User: "alice"}
	phone := Subject{User: "alice"}
	cam := Subject{User: "alice", Tags: []string{"device"}}
	bob := Subject{User: "bob"}
	bobsCam := Subject{User: "bob", Tags: []string{"device"}}
	for _, c := range []struct {
		src, dst Subject
		want     bool
	}{
		{laptop, cam, true}, {laptop, phone, true}, {laptop, bob, false}, {laptop, bobsCam, false},
		{cam, laptop, false}, {cam, cam, false}, {bob, cam, false}, {bob, bobsCam, true}, {Subject{}, Subject{}, false},
	} {
		if got := p.Reaches(c.src, c.dst); got != c.want {
			t.Errorf("%+v -> %+v: %v", c.src, c.dst, got)
		}
	}
	if !p.Initiates(laptop) || p.Initiates(cam) {
		t.Error("laptops initiate, tagged devices do not")
	}
	for _, dst := range []Subject{laptop, cam} {
		rules := p.RulesFor(dst)
		if len(rules) != 1 || len(rules[0].From) != 1 || rules[0].From[0] != "user:alice" || rules[0].Ports[0].Proto != "*" || rules[0].Ports[0].Last != 65535 {
			t.Errorf("rules for %+v: %+v", dst, rules)
		}
	}
}

func TestRules(t *testing.T) {
	p, err := Parse(`{"rules":[
		{"from":["tag:ci"],"to":["tag:prod"],"ports":["tcp:443","udp:1000-2000","icmp"]},
		{"from":["group:ops","user:alice"],"to":["*"],"ports":["tcp:22"]},
		{"from":["*"],"to":["self"],"ports":["*"]}]}`)
	if err != nil {
		t.Fatal(err)
	}
	ci := Subject{User: "alice", Tags: []string{"ci"}}
	prod := Subject{User: "bob", Tags: []string{"prod", "eu"}}
	ops := Subject{User: "carol", Groups: []string{"ops"}}
	if !p.Reaches(ci, prod) || p.Reaches(prod, ci) || !p.Reaches(ops, prod) || p.Reaches(ci, Subject{User: "alice"}) {
		t.Error("who reaches whom")
	}
	if !p.Initiates(ci) || p.Initiates(prod) {
		t.Error("who initiates")
	}
	b, _ := json.Marshal(p.RulesFor(prod))
	want := `[{"from":["tag:ci"],"ports":[{"proto":"tcp","first":443,"last":443},{"proto":"udp","first":1000,"last":2000},{"proto":"icmp","first":0,"last":65535}]},` +
		`{"from":["group:ops","user:alice"],"ports":[{"proto":"tcp","first":22,"last":22}]},` +
		`{"from":["user:bob"],"ports":[{"proto":"*","first":0,"last":65535}]}]`
	if string(b) != want {
		t.Errorf("got  %s\nwant %s", b, want)
	}
}

func TestParse(t *testing.T) {
	for _, bad := range []string{
		`{`, `[]`, `{"rules":[]} {}`, `{"rule":[]}`,
		`{"rules":[{"from":[],"to":["*"],"ports":["*"]}]}`,
		`{"rules":[{"from":["*"],"to":["*"],"ports":[]}]}`,
		`{"rules":[{"from":["alice"],"to":["*"],"ports":["*"]}]}`,
		`{"rules":[{"from":["self"],"to":["*"],"ports":["*"]}]}`,
		`{"rules":[{"from":["user:*"],"to":["*"],"ports":["*"]}]}`,
		`{"rules":[{"from":["*"],"to":["user:*"],"ports":["*"]}]}`,
		`{"rules":[{"from":["tag:a b"],"to":["*"],"ports":["*"]}]}`,
		`{"rules":[{"from":["*"],"to":["*"],"ports":["tcp:70000"]}]}`,
		`{"rules":[{"from":["*"],"to":["*"],"ports":["tcp:9-1"]}]}`,
		`{"rules":[{"from":["*"],"to":["*"],"ports":["icmp:1"]}]}`,
		`{"rules":[{"from":["*"],"to":["*"],"ports":["sctp"]}]}`,
		`{"rules":[{"from":["*"],"to":["*"],"ports":["*"],"deny":true}]}`,
		strings.Repeat(" ", MaxText+1),
	} {
		if _, err := Parse(bad); err == nil {
			t.Errorf("accepted: %.80s", bad)
		}
	}
	if p, err := Parse(""); err != nil || len(p.Rules) != 1 {
		t.Errorf("the empty text is the starting policy: %+v, %v", p, err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(`{"rules":[{"from":["user:*"],"to":["self"],"ports":["*"]}]}`)
	f.Add(`{"rules":[{"from":["tag:a","group:b"],"to":["*"],"ports":["tcp:1-2","icmp"]}]}`)
	f.Fuzz(func(t *testing.T, text string) {
		p, err := Parse(text)
		if err != nil {
			return
		}
		subjects := []Subject{{}, {User: "alice"}, {User: "alice", Tags: []string{"a"}}, {User: "bob", Groups: []string{"b"}}}
		for _, a := range subjects {
			for _, b := range subjects {
				// Who is seen is let in by a rule of the destination, and the
				// other way round nobody is let in who may not see.
				if p.Reaches(a, b) && (!p.Initiates(a) || len(p.RulesFor(b)) == 0) {
					t.Fatalf("%s: %+v -> %+v", text, a, b)
				}
			}
		}
	})
}
