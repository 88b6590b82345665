package policy

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// probes are ports at which random policies differ.
var probes = []Target{{Proto: "tcp", Port: 22}, {Proto: "tcp", Port: 443}, {Proto: "tcp", Port: 1}, {Proto: "tcp", Port: 65535}, {Proto: "udp", Port: 53}, {Proto: "udp", Port: 1000}, {Proto: "icmp"}}

// opens reads Change.Ports.
func opens(t testing.TB, words string) (p ports) {
	t.Helper()
	for word := range strings.SplitSeq(words, ", ") {
		if word == "other protocols" {
			p.other = true
			continue
		}
		r, err := parsePorts(word)
		if err != nil {
			t.Fatal(err)
		}
		p.add(r)
	}
	return p
}

// checkDiff compares a difference with the access of each pair at the probes.
func checkDiff(t testing.TB, before, after *Policy, subjects []Subject) {
	t.Helper()
	d := Diff(before, after, subjects)
	type at struct {
		i, j, probe, kind int
	}
	said := map[at]int{}
	for kind, list := range [][]Change{gained: d.Gains, lost: d.Losses, aesAdded: d.AESAdded, aesRemoved: d.AESRemoved} {
		for _, c := range list {
			open := opens(t, c.Ports)
			for _, i := range c.From {
				for _, j := range c.To {
					same := subjects[i].User != "" && subjects[i].User == subjects[j].User
					if c.Scope == Own && !same || c.Scope == Others && same {
						continue
					}
					for n, probe := range probes {
						if open.has(probe.Proto, probe.Port) {
							said[at{i, j, n, kind}]++
						}
					}
				}
			}
		}
	}
	for i, a := range subjects {
		for j, b := range subjects {
			for n, probe := range probes {
				was, wasAES := naiveAccess(before, a, b, probe)
				is, isAES := naiveAccess(after, a, b, probe)
				for kind, want := range []bool{gained: is && !was, lost: was && !is, aesAdded: isAES && !wasAES, aesRemoved: wasAES && is && !isAES} {
					if got := said[at{i, j, n, kind}]; got > 1 || got == 1 != want {
						t.Fatalf("%+v -> %+v at %+v: was %v (AES %v), is %v (AES %v); kind %d is listed %d times\nbefore %+v %v\nafter  %+v %v\n%+v", a, b, probe, was, wasAES, is, isAES, kind, got, before.Rules, before.AES, after.Rules, after.AES, d)
					}
				}
			}
		}
	}
}

func naiveAllows(p *Policy, src, dst Subject, at Target) bool {
	allowed, _ := naiveAccess(p, src, dst, at)
	return allowed
}

// naiveAccess decides as the package's comment words it; aes says that AES is needed.
func naiveAccess(p *Policy, src, dst Subject, at Target) (allowed, aes bool) {
	demanded := Rule{From: []string{"*"}, To: p.AES}.naiveReaches(Subject{}, dst)
	aes = true
	for _, r := range p.Rules {
		if r.naiveReaches(src, dst) && slices.ContainsFunc(r.Ports, func(word string) bool {
			pr, err := parsePorts(word)
			return err == nil && (pr.Proto == "*" || pr.Proto == at.Proto) && (at.Proto == "icmp" || pr.First <= at.Port && at.Port <= pr.Last)
		}) {
			allowed, aes = true, aes && (r.AES || demanded)
		}
	}
	return allowed, allowed && aes
}

// What a difference says is what becomes of each pair, neither more nor less.
func TestDiffAgainstNaive(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 60 {
		subjects := randomSubjects(r)
		checkDiff(t, demandAES(t, r, randomPolicy(t, r)), demandAES(t, r, randomPolicy(t, r)), subjects[:min(len(subjects), 30)])
	}
}

// demandAES returns a policy with random demands for AES.
func demandAES(t testing.TB, r *rand.Rand, p *Policy) *Policy {
	for i := range p.Rules {
		p.Rules[i].AES = r.IntN(3) == 0
	}
	for _, word := range []string{"*", "user:a", "group:g", "tag:x", "tag:y"} {
		if r.IntN(8) == 0 {
			p.AES = append(p.AES, word)
		}
	}
	if p.Rules == nil {
		p.Rules = []Rule{}
	}
	text, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	return mustParse(t, string(text))
}

func mustParse(t testing.TB, text string) *Policy {
	t.Helper()
	p, err := Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestDiff(t *testing.T) {
	subjects := []Subject{{User: "alice"}, {User: "bob"}, {User: "alice", Tags: []string{"camera"}}, {User: "bob", Tags: []string{"camera"}}, {User: "bob", Tags: []string{"door"}}}
	starting := Starting()
	for _, c := range []struct {
		name, before, after string
		gains, losses       string
	}{
		{"nothing", "", "", "[]", "[]"},
		{"no rule at all", "", `{"rules":[]}`, "[]", "[{[0 1] [0 1 2 3 4] own *}]"},
		{"cameras", "", `{"rules":[{"from":["user:*"],"to":["self"],"ports":["*"]},{"from":["user:bob"],"to":["tag:camera"],"ports":["tcp:443"]}]}`,
			"[{[1] [2]  tcp:443}]", "[]"},
		{"narrower", `{"rules":[{"from":["user:alice"],"to":["tag:door"],"ports":["tcp:1-100","icmp"]}]}`, `{"rules":[{"from":["user:alice"],"to":["tag:door"],"ports":["tcp:22"]}]}`,
			"[]", "[{[0] [4]  tcp:1-21, tcp:23-100, icmp}]"},
		{"all but one", `{"rules":[{"from":["*"],"to":["tag:door"],"ports":["*"]}]}`, `{"rules":[{"from":["*"],"to":["tag:door"],"ports":["tcp","udp","icmp"]}]}`,
			"[]", "[{[0 1 2 3 4] [4]  other protocols}]"},
		{"AES for a rule", `{"rules":[{"from":["user:alice"],"to":["tag:door"],"ports":["tcp:22"]}]}`, `{"rules":[{"from":["user:alice"],"to":["tag:door"],"ports":["tcp:22"],"aes":true}]}`,
			"[]", "[] AES +[{[0] [4]  tcp:22}] -[]"},
		{"AES for devices", "", `{"rules":[{"from":["user:*"],"to":["self"],"ports":["*"]}],"aes":["tag:camera"]}`,
			"[]", "[] AES +[{[0 1] [2 3] own *}] -[]"},
		{"new access, with AES", `{"rules":[]}`, `{"rules":[{"from":["user:alice"],"to":["tag:door"],"ports":["tcp:22"],"aes":true}]}`,
			"[{[0] [4]  tcp:22}]", "[] AES +[{[0] [4]  tcp:22}] -[]"},
		{"lost, with AES", `{"rules":[{"from":["user:alice"],"to":["tag:door"],"ports":["tcp:22"],"aes":true}]}`, `{"rules":[]}`,
			"[]", "[{[0] [4]  tcp:22}]"},
		{"part of it without AES", `{"rules":[{"from":["user:alice"],"to":["tag:door"],"ports":["tcp"],"aes":true}]}`, `{"rules":[{"from":["user:alice"],"to":["tag:door"],"ports":["tcp"],"aes":true},{"from":["*"],"to":["tag:door"],"ports":["tcp:22"]}]}`,
			"[{[1 2 3 4] [4]  tcp:22}]", "[] AES +[] -[{[0] [4]  tcp:22}]"},
		{"other words for the same", "", `{"rules":[{"from":["user:*"],"to":["self"],"ports":["tcp","*"]}]} // so`, "[]", "[]"},
	} {
		d := Diff(mustParse(t, c.before), mustParse(t, c.after), subjects)
		g, l := fmt.Sprint(d.Gains), fmt.Sprint(d.Losses)
		if len(d.AESAdded)+len(d.AESRemoved) > 0 {
			l += fmt.Sprintf(" AES +%v -%v", d.AESAdded, d.AESRemoved)
		}
		if g != c.gains || l != c.losses {
			t.Errorf("%s: gains %s, losses %s; want %s, %s", c.name, g, l, c.gains, c.losses)
		}
	}
	if d := Diff(starting, starting, nil); len(d.Gains)+len(d.Losses) != 0 {
		t.Errorf("%+v", d)
	}
}

// largePolicy and largeSubjects are 200 rules and 700 kinds of devices.
func largePolicy(t testing.TB, rules, first int) *Policy {
	p := Policy{Rules: []Rule{{From: []string{"user:*"}, To: []string{"self"}, Ports: []string{"*"}}}}
	for i := len(p.Rules); i < rules; i++ {
		r := Rule{From: []string{fmt.Sprintf("user:u%d", i), fmt.Sprintf("tag:t%d", i%50)}, To: []string{fmt.Sprintf("tag:t%d", (i+7)%50)}, Ports: []string{"tcp:443", fmt.Sprintf("udp:%d", first+i)}}
		if i%10 == 0 {
			r.From = []string{"*"}
		}
		p.Rules = append(p.Rules, r)
	}
	b, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	return mustParse(t, string(b))
}

func largeSubjects(n int) (list []Subject) {
	for i := range n {
		s := Subject{User: fmt.Sprintf("u%d", i%350)}
		if i >= 350 {
			s.Tags = []string{fmt.Sprintf("t%d", i%50), "device"}
		}
		list = append(list, s)
	}
	return list
}

func BenchmarkDiff(b *testing.B) {
	before, after := largePolicy(b, 200, 1), largePolicy(b, 200, 5000)
	for _, n := range []int{700, 10_000} {
		subjects := largeSubjects(n)
		b.Run(fmt.Sprintf("kinds=%d", n), func(b *testing.B) {
			for b.Loop() {
				Diff(before, after, subjects)
			}
		})
	}
}

func BenchmarkExplain(b *testing.B) {
	p, subjects := largePolicy(b, 200, 1), largeSubjects(700)
	i := 0
	for b.Loop() {
		p.Explain(subjects[i%700], subjects[(i*7+3)%700], "tcp", 443)
		i++
	}
}
