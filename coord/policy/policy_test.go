package policy

import (
	"encoding/json"
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
