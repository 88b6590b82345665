package policy

import (
	"encoding/json"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"weft/overlay/api"
	"weft/overlay/cert"
)

// What follows decides as the package's comment words it, selector by
// selector: slow, and what the package must agree with.

func naiveSelects(s string, n Subject) bool {
	if s == "*" {
		return true
	}
	kind, name, _ := strings.Cut(s, ":")
	switch kind {
	case "user":
		return len(n.Tags) == 0 && n.User != "" && (name == "*" || name == n.User)
	case "group":
		return len(n.Tags) == 0 && slices.Contains(n.Groups, name)
	case "tag":
		return slices.Contains(n.Tags, name)
	}
	return false
}

func (r Rule) naiveReaches(src, dst Subject) bool {
	if src.Suspended && len(src.Tags) == 0 || !slices.ContainsFunc(r.From, func(s string) bool { return naiveSelects(s, src) }) {
		return false
	}
	return slices.ContainsFunc(r.To, func(s string) bool {
		if s == "self" {
			return len(src.Tags) == 0 && src.User != "" && src.User == dst.User
		}
		return naiveSelects(s, dst)
	})
}

func (p *Policy) naiveReaches(src, dst Subject) bool {
	return slices.ContainsFunc(p.Rules, func(r Rule) bool { return r.naiveReaches(src, dst) })
}

func (p *Policy) naiveInitiates(src Subject) bool {
	return !(src.Suspended && len(src.Tags) == 0) && slices.ContainsFunc(p.Rules, func(r Rule) bool {
		return slices.ContainsFunc(r.From, func(s string) bool { return naiveSelects(s, src) }) &&
			(len(src.Tags) == 0 || slices.ContainsFunc(r.To, func(s string) bool { return s != "self" }))
	})
}

// naiveWord is a person as rules name them.
func (p People) naiveWord(name string) string {
	if len(p.Users[name].Overdue) > 0 {
		return api.NotOverdue + "user:" + name
	}
	return "user:" + name
}

// naiveAudience is whom a word of From stands for at nodes.
func naiveAudience(word string, people People) (list []string) {
	suspended := false
	for _, u := range people.Users {
		suspended = suspended || u.Suspended || len(u.Overdue) > 0
	}
	kind, name, _ := strings.Cut(word, ":")
	switch {
	case word == "*" && !suspended, kind == "tag", word == "user:*":
		return []string{word}
	case kind == "user":
		if !people.Users[name].Suspended {
			list = []string{people.naiveWord(name)}
		}
		return list
	}
	for user, u := range people.Users {
		if !u.Suspended && (word == "*" || slices.Contains(u.Groups, name)) {
			list = append(list, people.naiveWord(user))
		}
	}
	if word == "*" {
		for _, tag := range people.Tags {
			list = append(list, "tag:"+tag)
		}
	}
	return list
}

// peopleOf are those of some nodes.
func peopleOf(subjects ...Subject) People {
	people := People{Users: map[string]Person{}, Tags: []string{"a", "x", "y", "z", "w"}}
	for _, s := range subjects {
		if s.User != "" {
			people.Users[s.User] = Person{Groups: s.Groups, Suspended: s.Suspended}
		}
	}
	return people
}

// letsIn reports whether rules let a node in, as nodes see it: a certificate has a person
// and tags, and no groups.
func letsIn(rules []api.Rule, src Subject) bool {
	return slices.ContainsFunc(rules, func(r api.Rule) bool {
		return slices.ContainsFunc(r.From, func(s string) bool {
			return naiveSelects(s, Subject{User: src.User, Tags: src.Tags})
		})
	})
}

// notOverdue are rules as they are for devices that are not overdue.
func notOverdue(rules []api.Rule) []api.Rule {
	list := slices.Clone(rules)
	for i := range list {
		list[i].From = slices.Clone(list[i].From)
		for j, s := range list[i].From {
			list[i].From[j] = strings.TrimPrefix(s, api.NotOverdue)
		}
	}
	return list
}

func (p *Policy) naiveRulesFor(t testing.TB, dst Subject, people People) []api.Rule {
	rules := []api.Rule{}
	for _, r := range p.Rules {
		var from []string
		add := func(s string) {
			if !slices.Contains(from, s) {
				from = append(from, s)
			}
		}
		direct, self := false, false
		for _, s := range r.To {
			if s == "self" {
				self = dst.User != ""
			} else if naiveSelects(s, dst) {
				direct = true
			}
		}
		for _, s := range r.From {
			if direct {
				for _, word := range naiveAudience(s, people) {
					add(word)
				}
			}
			if own := "user:" + dst.User; self && !people.Users[dst.User].Suspended && (s == "*" || s == "user:*" || s == own || strings.HasPrefix(s, "group:") && slices.Contains(dst.Groups, s[len("group:"):])) {
				add(people.naiveWord(dst.User))
			}
		}
		if len(from) == 0 {
			continue
		}
		var ports []api.PortRange
		for _, s := range r.Ports {
			pr, err := parsePorts(s)
			if err != nil {
				t.Fatal(err)
			}
			ports = append(ports, pr)
		}
		slices.Sort(from)
		rules = append(rules, api.Rule{From: from, Ports: ports})
	}
	return rules
}

// randomPolicy is a policy that names few users, groups and tags, so that its
// rules meet each other and the subjects.
func randomPolicy(t testing.TB, r *rand.Rand) *Policy {
	words := []string{"*", "user:a", "user:b", "user:c", "group:g", "group:h", "tag:a", "tag:x", "tag:y", "tag:z"}
	some := func(of ...string) []string {
		list := make([]string, 1+r.IntN(4))
		for i := range list {
			list[i] = of[r.IntN(len(of))]
		}
		return list
	}
	var p Policy
	// Past 64 rules, which a word of a set holds, at times.
	for range r.IntN(6) * r.IntN(20) {
		rule := Rule{From: some(words[r.IntN(len(words)):]...), To: some(append(words[1:], "self")...), Ports: some("*", "tcp", "udp", "icmp", "tcp:22", "tcp:0-1024", "udp:53", "tcp:65535")}
		switch r.IntN(5) {
		case 0:
			rule.From, rule.To = append(rule.From, "user:*"), []string{"self"}
		case 1:
			rule.To = append(rule.To, "*")
		}
		p.Rules = append(p.Rules, rule)
	}
	if p.Rules == nil {
		p.Rules = []Rule{}
	}
	text, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := Parse(string(text))
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

// randomSubjects are nodes of a few users, one of which no policy names. The
// groups are those of the user.
func randomSubjects(r *rand.Rand) []Subject {
	suspended := map[string]bool{}
	if r.IntN(2) == 0 {
		suspended[[]string{"a", "b", "c", "d"}[r.IntN(4)]] = true
	}
	groups := map[string][]string{"b": {"g"}, "c": {"h", "g", "other"}}
	some := func(of ...string) (list []string) {
		for _, s := range of {
			if r.IntN(3) == 0 {
				list = append(list, s)
			}
		}
		return list
	}
	list := make([]Subject, r.IntN(80))
	for i := range list {
		user := []string{"a", "b", "c", "d", ""}[r.IntN(5)]
		list[i] = Subject{User: user, Groups: groups[user], Suspended: suspended[user]}
		if r.IntN(2) == 0 {
			list[i].Tags = some("a", "x", "y", "z", "w")
		}
	}
	return list
}

// checkAgainstNaive compares all answers about some subjects.
func checkAgainstNaive(t testing.TB, p *Policy, subjects []Subject, known int) {
	classes := p.Relate(subjects[:known])
	for i, s := range subjects[known:] {
		if n := classes.Add(s); n != known+i {
			t.Fatalf("class %d has number %d", known+i, n)
		}
	}
	if classes.Len() != len(subjects) {
		t.Fatalf("%d classes, want %d", classes.Len(), len(subjects))
	}
	people := peopleOf(subjects...)
	people.Users["e"] = Person{Groups: []string{"g"}} // without a device
	if u, ok := people.Users["c"]; ok && known%2 == 0 {
		u.Overdue = []cert.NodeID{{1}, {2}}
		people.Users["c"] = u
	}
	want := p.naiveReaches
	audience := p.Audience(people)
	for i, a := range subjects {
		if got, want := p.Initiates(a), p.naiveInitiates(a); got != want {
			t.Fatalf("%+v initiates: %v\n%+v", a, got, p.Rules)
		}
		rules := p.RulesFor(a, audience)
		sorted := slices.Clone(rules)
		for i := range sorted {
			sorted[i].From = slices.Sorted(slices.Values(sorted[i].From))
		}
		if want := p.naiveRulesFor(t, a, people); !reflect.DeepEqual(sorted, want) {
			t.Fatalf("rules for %+v\ngot  %+v\nwant %+v\n%+v", a, sorted, want, p.Rules)
		}
		var reached, reaching []int
		for j, b := range subjects {
			if got := p.Reaches(a, b); got != want(a, b) {
				t.Fatalf("%+v -> %+v: %v\n%+v", a, b, got, p.Rules)
			}
			if want(a, b) {
				reached = append(reached, j)
			}
			if want(b, a) {
				reaching = append(reaching, j)
			}
			acts := len(b.Tags) == 0
			overdue := acts && len(people.Users[b.User].Overdue) > 0
			if b.User != "" && letsIn(rules, b) != (want(b, a) && !overdue) {
				t.Fatalf("%+v lets %+v in: %v\n%+v\n%+v", a, b, letsIn(rules, b), rules, p.Rules)
			}
			if b.User != "" && letsIn(notOverdue(rules), b) != want(b, a) {
				t.Fatalf("%+v lets %+v in, which is not overdue: %v\n%+v\n%+v", a, b, !want(b, a), rules, p.Rules)
			}
		}
		for _, c := range []struct {
			what string
			got  Set
			want []int
		}{{"reaches", classes.Reached(i), reached}, {"is reached by", classes.Reaching(i), reaching}} {
			if got := slices.Collect(c.got.All()); !slices.Equal(got, c.want) {
				t.Fatalf("%d %+v %s %v, want %v\n%+v\n%+v", i, a, c.what, got, c.want, p.Rules, subjects)
			}
			for _, j := range []int{0, i, len(subjects), len(subjects) + 100} { // past the end too
				if c.got.Has(j) != slices.Contains(c.want, j) {
					t.Fatalf("%d %+v %s %d: %v", i, a, c.what, j, c.got.Has(j))
				}
			}
		}
	}
}

// Random policies answer as their words say, whatever was known of the
// subjects when, and the same again.
func TestAgainstNaive(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 100 {
		p, subjects := randomPolicy(t, r), randomSubjects(r)
		checkAgainstNaive(t, p, subjects, r.IntN(len(subjects)+1))
	}
}

func FuzzAgainstNaive(f *testing.F) {
	f.Add(`{"rules":[{"from":["*"],"to":["self","tag:a"],"ports":["tcp:22"]}]}`, uint64(1))
	f.Add(`{"rules":[{"from":["group:g","group:g","user:a"],"to":["self","self","*"],"ports":["*"]}]}`, uint64(2))
	f.Add(`{"rules":[{"from":["user:*","tag:x"],"to":["self"],"ports":["*","icmp"]}]}`, uint64(3))
	f.Fuzz(func(t *testing.T, text string, seed uint64) {
		p, err := Parse(text)
		if err != nil {
			return
		}
		r := rand.New(rand.NewPCG(seed, 0))
		subjects := randomSubjects(r)
		checkAgainstNaive(t, p, subjects, r.IntN(len(subjects)+1))
	})
}
