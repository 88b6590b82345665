package policy

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"weft/overlay/cert"
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
		rules := p.RulesFor(dst, p.Audience(People{}))
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
	b, _ := json.Marshal(p.RulesFor(prod, p.Audience(People{Users: map[string]Person{"carol": {Groups: []string{"ops"}}, "dave": {}}})))
	want := `[{"from":["tag:ci"],"ports":[{"proto":"tcp","first":443,"last":443},{"proto":"udp","first":1000,"last":2000},{"proto":"icmp","first":0,"last":65535}]},` +
		`{"from":["user:alice","user:carol"],"ports":[{"proto":"tcp","first":22,"last":22}]},` +
		`{"from":["user:bob"],"ports":[{"proto":"*","first":0,"last":65535}]}]`
	if string(b) != want {
		t.Errorf("got  %s\nwant %s", b, want)
	}
}

// AES is demanded by rules, and of all rules to some devices. What the device gets is in
// words that devices of earlier versions do not know.
func TestDemandsAES(t *testing.T) {
	p, err := Parse(`{
		"rules": [
			{"from": ["user:ann"], "to": ["tag:vault", "tag:web"], "ports": ["tcp:443"]},
			{"from": ["user:ann"], "to": ["tag:web"], "ports": ["tcp:22"], "aes": true},
			{"from": ["*"], "to": ["self"], "ports": ["tcp:80"], "aes": false},
		],
		"aes": ["tag:vault", "user:eve"],
	}`)
	if err != nil {
		t.Fatal(err)
	}
	ann := Subject{User: "ann"}
	web, vault, eve := Subject{User: "ann", Tags: []string{"web"}}, Subject{User: "ann", Tags: []string{"vault"}}, Subject{User: "eve"}
	for _, c := range []struct {
		dst  Subject
		want []string
	}{
		{web, []string{"user:ann", "aes:user:ann", "user:ann"}},
		{vault, []string{"aes:user:ann", "aes:user:ann"}},
		{eve, []string{"aes:user:eve"}},
		{ann, []string{"user:ann"}},
	} {
		var got []string
		for _, r := range p.RulesFor(c.dst, p.Audience(People{})) {
			got = append(got, r.From...)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%+v: %q, want %q", c.dst, got, c.want)
		}
	}
	for _, c := range []struct {
		src, dst     Subject
		port         uint16
		allowed, aes bool
	}{
		{ann, web, 443, true, false}, {ann, web, 22, true, true}, {ann, vault, 443, true, true}, {ann, vault, 22, false, false},
		{eve, eve, 80, true, true}, {ann, ann, 80, true, false}, {eve, web, 22, false, false},
	} {
		d := p.Explain(c.src, c.dst, "tcp", c.port)
		if d.Allowed != c.allowed || d.AES != c.aes || strings.HasSuffix(d.Why(), "; with AES alone") != c.aes {
			t.Errorf("%+v to %+v: %d: %+v, %s", c.src, c.dst, c.port, d, d.Why())
		}
	}
	// A rule without the demand lets all in, whatever others say.
	p, err = Parse(`{"rules": [
		{"from": ["*"], "to": ["*"], "ports": ["tcp:1-9"], "aes": true},
		{"from": ["*"], "to": ["*"], "ports": ["tcp:9"]}]}`)
	if err != nil {
		t.Fatal(err)
	}
	if d := p.Explain(ann, eve, "tcp", 9); d.AES || !d.Allowed {
		t.Errorf("%+v", d)
	}
	p, err = Parse(`{"rules": [{"from": ["*"], "to": ["*"], "ports": ["*"]}], "aes": ["*"]}`)
	if err != nil || p.RulesFor(ann, p.Audience(People{}))[0].From[0] != "aes:*" {
		t.Errorf("of the whole network: %+v, %v", p, err)
	}
	for _, wrong := range []string{
		`{"rules": [], "aes": ["self"]}`, `{"rules": [], "aes": true}`, `{"rules": [], "aes": ["aes:*"]}`, `{"rules": [], "aes": ["user:*"]}`,
		`{"rules": [{"from": ["*"], "to": ["*"], "ports": ["*"], "aes": "yes"}]}`,
		`{"rules": [{"from": ["aes:*"], "to": ["*"], "ports": ["*"]}]}`,
	} {
		if _, err := Parse(wrong); err == nil {
			t.Errorf("%s was accepted", wrong)
		}
	}
}

// The config of a device lists the overdue devices of the people whom its rules name, and no
// others. Who has too many is named no more.
func TestOverdueDevices(t *testing.T) {
	p, err := Parse(`{"rules":[{"from":["user:a","user:b"],"to":["tag:x"],"ports":["*"]},{"from":["*"],"to":["tag:y"],"ports":["*"],"aes":true},{"from":["user:*"],"to":["self"],"ports":["*"]}]}`)
	if err != nil {
		t.Fatal(err)
	}
	many := make([]cert.NodeID, maxOverdue+1)
	audience := p.Audience(People{Users: map[string]Person{"a": {Overdue: []cert.NodeID{{1}}}, "b": {}, "c": {Overdue: []cert.NodeID{{2}, {3}}}, "d": {Overdue: many}, "e": {Suspended: true, Overdue: []cert.NodeID{{4}}}}, Tags: []string{"x"}})
	for _, c := range []struct {
		dst  Subject
		from []string
		ids  []cert.NodeID
	}{
		{Subject{User: "z", Tags: []string{"x"}}, []string{"not-overdue:user:a", "user:b", "user:z"}, []cert.NodeID{{1}}},
		{Subject{User: "z", Tags: []string{"y"}}, []string{"aes:not-overdue:user:a", "aes:not-overdue:user:c", "aes:tag:x", "aes:user:b", "user:z"}, []cert.NodeID{{1}, {2}, {3}}},
		{Subject{User: "c"}, []string{"not-overdue:user:c"}, []cert.NodeID{{2}, {3}}},
		{Subject{User: "b"}, []string{"user:b"}, nil},
		{Subject{User: "d"}, nil, nil},
		{Subject{User: "e"}, nil, nil},
	} {
		rules := p.RulesFor(c.dst, audience)
		var from []string
		for _, r := range rules {
			from = append(from, r.From...)
		}
		slices.Sort(from)
		if ids := audience.Overdue(rules); !slices.Equal(from, c.from) || !slices.Equal(ids, c.ids) {
			t.Errorf("%+v: %v, %v", c.dst, from, ids)
		}
	}
}
