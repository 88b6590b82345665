package console

import (
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"weft/coord/ops"
	"weft/coord/policy"
	"weft/coord/store"
)

// rulesView is the page with the rules as a table, for reading.
type rulesView struct {
	Tabs           tabsView
	Rules          []ruleView
	Total, Matches int
	Query          string // that the rules shown match
	AES            []wordView
	Starting       bool // nothing was put into force yet
	Unknown        int  // names in the policy that stand for nothing
	Failing        int  // tests that do not hold now
	Prev, Next     string
	Can            canView
}

// ruleView is a rule for reading.
type ruleView struct {
	Number, Line int // from 1; Line is 0 where there is no text
	From, To     []wordView
	Ports        []string
	AES          string // to what AES is demanded: "all", "some" or ""
	Marked       bool   // it answers the question
}

// wordView is who or what a word of a rule means.
type wordView struct {
	Word    string // as the rule has it
	Kind    string // "person", "group", "tag", "role", or "" for one of the fixed words
	Name    string
	Missing string // why it stands for nothing, "" if it stands for something
	Href    string // the page about it, "" for none
	Count   string // how many it stands for, "" if that is not known
	Members []string
	More    int // members that are not listed
}

const (
	maxRulesShown = 200
	maxWordsShown = 12
	maxInGroup    = 50
)

// words turns the words of a rule into what they mean.
func (p *reviewed) words(list []string) (out []wordView) {
	for i, w := range list {
		if i == maxWordsShown {
			return append(out, wordView{Name: fmt.Sprintf("and %d more", len(list)-i)})
		}
		out = append(out, p.word(w))
	}
	return out
}

// reviewed is a policy beside its network, and a visitor.
type reviewed struct {
	ops.PolicyReview
	people bool // the visitor may see all people
}

func (c *Console) review(v *visit) (*reviewed, error) {
	r, err := c.ops.ReviewPolicy(v.ctx(), v.actor)
	return &reviewed{r, v.actor.ReadsPeople()}, err
}

func (p *reviewed) word(w string) wordView {
	kind, name, _ := strings.Cut(w, ":")
	view := wordView{Word: clean(w), Name: clean(name), Missing: clean(p.Missing[w])}
	switch {
	case w == "*":
		view.Name = "everything"
	case w == "self":
		view.Name = "their own devices"
	case w == "user:*":
		view.Name = "everybody"
	case kind == "user":
		view.Kind = "person"
		if view.Missing == "" && p.people {
			view.Href = personPath(name)
		}
	case kind == "group":
		view.Kind = "group"
		if g, ok := p.Groups[name]; ok {
			view.Count = plural(len(g.Members), "person")
			if len(g.Members) != 1 {
				view.Count = thousands(len(g.Members)) + " people"
			}
			for i, m := range g.Members {
				if i == maxInGroup {
					view.More = len(g.Members) - i
					break
				}
				view.Members = append(view.Members, clean(m))
			}
		}
	case kind == "tag":
		view.Kind, view.Href = "tag", "/devices?"+url.Values{"q": {"#" + name}}.Encode()
		if n, ok := p.Tagged[name]; ok && view.Missing == "" {
			view.Count = plural(n, "device")
		}
	case kind == "role":
		view.Kind = "role"
	default:
		view.Name = clean(w)
	}
	return view
}

// aes says to how much of a rule's destinations AES alone is let through.
func (p *reviewed) aes(r policy.Rule) string {
	if r.AES || slices.Contains(p.Policy.AES, "*") {
		return "all"
	}
	n := 0
	for _, to := range r.To {
		if slices.Contains(p.Policy.AES, to) {
			n++
		}
	}
	switch {
	case n > 0 && n == len(r.To):
		return "all"
	case n > 0, len(p.Policy.AES) > 0 && (slices.Contains(r.To, "self") || slices.Contains(r.To, "*")):
		return "some"
	}
	return ""
}

// access is the page with the rules.
func (c *Console) access(v *visit) error {
	q := v.r.URL.Query()
	if n, err := strconv.Atoi(q.Get("number")); err == nil && n >= 0 { // where it was once
		return v.redirect(policyPath + "?number=" + strconv.Itoa(n))
	}
	p, err := c.review(v)
	if err != nil {
		return err
	}
	view := rulesView{Tabs: accessTabs(rulesPath), Starting: p.Text == "", Total: len(p.Policy.Rules), Unknown: len(p.Missing), AES: p.words(p.Policy.AES)}
	for _, t := range p.Tests {
		if t.Failed != "" {
			view.Failing++
		}
	}
	if view.Can, err = c.can(v); err != nil {
		return err
	}
	find := strings.ToLower(strings.ToValidUTF8(cut(strings.TrimSpace(q.Get("q")), 100), ""))
	view.Query = clean(find)
	begin, _ := strconv.Atoi(q.Get("at"))
	for i, r := range p.Policy.Rules {
		if find != "" && !strings.Contains(strings.ToLower(strings.Join(slices.Concat(r.From, r.To, r.Ports), " ")), find) {
			continue
		}
		if view.Matches++; view.Matches <= begin || len(view.Rules) == maxRulesShown {
			continue
		}
		view.Rules = append(view.Rules, ruleView{
			Number: i + 1, Line: r.Line, From: p.words(r.From), To: p.words(r.To), Ports: ruleWords(r.Ports), AES: p.aes(r),
			Marked: view.Can.Allowed && view.Can.Rule == i+1,
		})
	}
	page := func(at int) string {
		again := url.Values{}
		if find != "" {
			again.Set("q", view.Query)
		}
		if at > 0 {
			again.Set("at", strconv.Itoa(at))
		}
		return actPath(rulesPath, again)
	}
	if begin > 0 {
		view.Prev = page(max(begin-maxRulesShown, 0))
	}
	if end := begin + len(view.Rules); end < view.Matches && len(view.Rules) > 0 {
		view.Next = page(end)
	}
	return c.render(v, http.StatusOK, "access", view)
}

// rulePath is where a rule is in the table.
func rulePath(n int) string {
	if at := (n - 1) / maxRulesShown * maxRulesShown; at > 0 {
		return fmt.Sprintf("%s?at=%d#rule-%d", rulesPath, at, n)
	}
	return fmt.Sprintf("%s#rule-%d", rulesPath, n)
}

// testsView is the page with the tests of the policy.
type testsView struct {
	Tabs          tabsView
	Tests         []resultView
	Total, Failed int
	Only          bool   // only what fails
	Problem       string // why there are no results
	More          int    // that are not shown
	Partial       bool
	Change        bool
}

// resultView is an expectation of a test.
type resultView struct {
	Test, Line  int
	Src, Target string
	Accept      bool
	Failed      string
}

func (c *Console) policyTests(v *visit) error {
	p, err := c.review(v)
	if err != nil {
		return err
	}
	view := testsView{Tabs: accessTabs(testsPath), Total: len(p.Tests), Problem: cleanLong(p.TestProblem), Partial: p.Partial, Only: v.r.URL.Query().Get("failed") == "1", Change: v.mayChange()}
	for _, t := range p.Tests {
		if t.Failed != "" {
			view.Failed++
		} else if view.Only {
			continue
		}
		if len(view.Tests) == maxRulesShown {
			view.More++
			continue
		}
		view.Tests = append(view.Tests, resultView{t.Test, t.Line, clean(t.Src), clean(t.Target), t.Accept, cleanLong(t.Failed)})
	}
	return c.render(v, http.StatusOK, "policytests", view)
}

// tagsView is the page with the tags and groups that the policy names.
type tagsView struct {
	Tabs         tabsView
	Tags, Groups []namedView
	More         int  // tags that are not shown
	Others       int  // tags that devices carry and the policy does not name
	Seen         bool // the visitor may see who is in the groups
}

// namedView is a tag or a group that the policy names.
type namedView struct {
	Is     wordView
	Count  string     // devices that carry it
	Rules  string     // that name it
	Giving []wordView // who may give it, beside owners and admins
	Listed bool       // the policy says who may
	Of     string     // the provider that says who is in it, "" for none
}

func (c *Console) policyTags(v *visit) error {
	p, err := c.review(v)
	if err != nil {
		return err
	}
	view := tagsView{Tabs: accessTabs(tagsPath), Seen: p.Groups != nil}
	rules := map[string][]int{}
	note := func(i int, words []string) {
		for _, w := range words {
			if n := len(rules[w]); n == 0 || rules[w][n-1] != i {
				rules[w] = append(rules[w], i)
			}
		}
	}
	for i, r := range p.Policy.Rules {
		note(i+1, r.From)
		note(i+1, r.To)
	}
	for _, w := range p.Policy.AES {
		rules[w] = append(rules[w], 0)
	}
	for tag, who := range p.Policy.TagOwners {
		rules["tag:"+tag] = append(rules["tag:"+tag], 0)
		for _, w := range who {
			rules[w] = append(rules[w], 0)
		}
	}
	named := 0
	for _, w := range slices.Sorted(maps.Keys(rules)) {
		kind, name, _ := strings.Cut(w, ":")
		n := namedView{Is: p.word(w), Rules: numbersText(rules[w])}
		switch kind {
		case "tag":
			if _, carried := p.Tagged[name]; carried {
				named++
			}
			if len(view.Tags) == maxRulesShown {
				view.More++
				continue
			}
			owners, listed := p.Policy.TagOwners[name]
			n.Count, n.Is.Count = n.Is.Count, ""
			n.Giving, n.Listed = p.words(owners), listed
			view.Tags = append(view.Tags, n)
		case "group":
			if len(view.Groups) < maxRulesShown {
				n.Of = groupSource(p.Groups[name])
				view.Groups = append(view.Groups, n)
			}
		}
	}
	view.Others = len(p.Tagged) - named
	return c.render(v, http.StatusOK, "policytags", view)
}

// groupSource says which providers say who is in a group.
func groupSource(g store.Group) string { return strings.Join(cleanAll(g.Sources), ", ") }

// numbersText names rules by their numbers; 0 is none.
func numbersText(list []int) string {
	var words []string
	list = slices.DeleteFunc(slices.Clone(list), func(n int) bool { return n == 0 })
	for i, n := range list {
		if i == maxWordsShown {
			words = append(words, fmt.Sprintf("and %d more", len(list)-i))
			break
		}
		words = append(words, strconv.Itoa(n))
	}
	switch len(words) {
	case 0:
		return ""
	case 1:
		return "rule " + words[0]
	}
	return "rules " + strings.Join(words, ", ")
}
