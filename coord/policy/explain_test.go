package policy

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"weft/overlay/api"
)

// enforced is what a node does with the rules that it is sent: is src let in at a port?
func enforced(rules []api.Rule, src Subject, at Target) bool {
	return slices.ContainsFunc(rules, func(r api.Rule) bool {
		return slices.ContainsFunc(r.From, func(s string) bool { return naiveSelects(s, src) }) &&
			slices.ContainsFunc(r.Ports, func(p api.PortRange) bool {
				return (p.Proto == "*" || p.Proto == at.Proto) && (at.Proto == "icmp" || p.First <= at.Port && at.Port <= p.Last)
			})
	})
}

// An explanation is what nodes enforce, and what it names is a rule that allows it by
// itself, the first.
func TestExplainAgainstNodes(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for range 60 {
		p, subjects := randomPolicy(t, r), randomSubjects(r)
		for _, dst := range subjects {
			rules := p.RulesFor(dst, p.Audience(peopleOf(subjects...)))
			for _, src := range subjects[:min(20, len(subjects))] {
				if src.User == "" && len(src.Tags) == 0 {
					continue // there is no such node
				}
				for _, at := range probes {
					d := p.Explain(src, dst, at.Proto, at.Port)
					if want := enforced(rules, src, at); d.Allowed != want || lets(p, src, dst, at) != want || naiveAllows(p, src, dst, at) != want {
						t.Fatalf("%+v -> %+v at %+v: %+v, the node says %v\n%+v", src, dst, at, d, want, p.Rules)
					}
					first := 1 + slices.IndexFunc(p.Rules, func(r Rule) bool { return naiveAllows(&Policy{Rules: []Rule{r}}, src, dst, at) })
					if d.Rule != first {
						t.Fatalf("%+v -> %+v at %+v: rule %d, want %d", src, dst, at, d.Rule, first)
					}
					if reaches := p.Reaches(src, dst); reaches != (d.Open != "") {
						t.Fatalf("%+v -> %+v: reaches %v, open %q", src, dst, reaches, d.Open)
					}
				}
			}
		}
	}
}

func TestExplain(t *testing.T) {
	p := mustParse(t, "{\n  // rules\n  \"rules\": [\n    {\"from\": [\"user:*\"], \"to\": [\"self\"], \"ports\": [\"*\"]},\n\n    {\"from\": [\"user:bob\"],\n     \"to\": [\"tag:camera\"], \"ports\": [\"tcp:443\"],},\n  ],\n}")
	alice, bob, camera := Subject{User: "alice"}, Subject{User: "bob"}, Subject{User: "alice", Tags: []string{"camera"}}
	for _, c := range []struct {
		src, dst Subject
		port     uint16
		want     string
		ok       bool
	}{
		{alice, camera, 22, `by rule 1 in line 4: {"from":["user:*"],"to":["self"],"ports":["*"]}`, true},
		{bob, camera, 443, `by rule 2 in line 6: {"from":["user:bob"],"to":["tag:camera"],"ports":["tcp:443"]}`, true},
		{bob, camera, 22, "no rule allows it; what the rules let through is tcp:443", false},
		{camera, alice, 22, "no rule allows it", false},
	} {
		if d := p.Explain(c.src, c.dst, "tcp", c.port); d.Allowed != c.ok || d.Why() != c.want {
			t.Errorf("%+v -> %+v: %v %s", c.src, c.dst, d.Allowed, d.Why())
		}
	}
	long := Rule{From: []string{strings.Repeat("é", 1000)}}
	if s := []rune(long.String()); len(s) != maxRuleText+1 {
		t.Errorf("%d characters", len(s))
	}
}

func TestParseTarget(t *testing.T) {
	for in, want := range map[string]Target{
		"pi:22": {"pi", "tcp", 22}, "pi:53/udp": {"pi", "udp", 53}, "pi:53/tcp": {"pi", "tcp", 53}, "pi/icmp": {"pi", "icmp", 0},
		"kitchen-pi.weft.internal:80": {"kitchen-pi.weft.internal", "tcp", 80}, "[fd00::1]:22": {"fd00::1", "tcp", 22}, "[fd00::1]/icmp": {"fd00::1", "icmp", 0},
		"tag:camera:554": {"tag:camera", "tcp", 554}, "user:alice:22/udp": {"user:alice", "udp", 22}, "device:alice:22": {"device:alice", "tcp", 22}, "100.64.0.1:65535": {"100.64.0.1", "tcp", 65535},
		"küche:22": {"küche", "tcp", 22},
	} {
		got, err := ParseTarget(in, "")
		if err != nil || got != want {
			t.Errorf("%s: %+v, %v", in, got, err)
		}
		if again, err := ParseTarget(got.String(), "udp"); err != nil || again != got && got.Proto != "tcp" {
			t.Errorf("%s becomes %s", in, got)
		}
	}
	for _, bad := range []string{"", "pi", "pi:", "pi:0", "pi:65536", "pi:-1", "pi:22/sctp", "pi:22/", "pi:22-23", ":22", "fd00::1:22", "[fd00::1:22", "a b:22", "*:22", "tag::22", "group:ops:22", "tag:a b:22", "pi:22/icmp", strings.Repeat("x", 300) + ":22"} {
		if got, err := ParseTarget(bad, ""); err == nil {
			t.Errorf("%s: %+v", bad, got)
		}
	}
	if got, err := ParseTarget("pi:22", "udp"); err != nil || got.Proto != "udp" {
		t.Errorf("%+v, %v", got, err)
	}
}

// lets is what tests of policies go by.
func lets(p *Policy, src, dst Subject, at Target) bool {
	c := &p.compiled
	own := src.acts() && src.User == dst.User
	return c.lets(c.rulesOf(src), c.rulesTo(c.selectorsOf(dst)), c.opening(at.Proto, at.Port), own)
}
