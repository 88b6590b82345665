package ops

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// said is a group in words.
func (g ReachGroup) said() string {
	var rules []string
	for _, by := range g.By {
		rules = append(rules, fmt.Sprint(by.Rule))
	}
	return fmt.Sprintf("%v %v %d+%d %v at %s by %s", g.Users, g.Devices, g.UserCount, g.DeviceCount, g.Tags, strings.Join(g.Ports, ","), strings.Join(rules, ","))
}

// What one reaches, and who reaches a device, is grouped by the rules that decide, and is
// what can says of each pair. Nobody learns of devices that are not for him to see.
func TestReach(t *testing.T) {
	s := openSite(t)
	actor := map[string]Actor{"root": Root()}
	for name, c := range map[string]CreateUser{"anna": {}, "ben": {}, "olga": {Role: RoleOperator, Tags: []string{"camera"}}, "admin2": {Role: RoleAdmin}} {
		c.Name = name
		u, err := Do(t.Context(), s.Service, Root(), c)
		if err != nil {
			t.Fatal(err)
		}
		actor[name] = actorOf(u, ViaAPI, Root().From)
	}
	for i := range 15 {
		s.joined(CreateKey{Tags: []string{"camera"}}, fmt.Sprintf("cam%02d", i))
	}
	s.joined(CreateKey{Tags: []string{"door"}}, "door")
	s.joined(CreateKey{User: "anna"}, "desk")
	s.joined(CreateKey{User: "anna"}, "book")
	s.joined(CreateKey{User: "anna", Tags: []string{"nas"}}, "nas")
	if _, err := s.set(`{"rules":[
		{"from":["user:*"],"to":["self"],"ports":["*"]},
		{"from":["user:anna","tag:door"],"to":["tag:camera"],"ports":["tcp:554","icmp"]},
		{"from":["user:anna","user:ben"],"to":["tag:camera","tag:door"],"ports":["tcp:80"]},
	]}`); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		by   string
		q    ReachQuery
		want []string
		err  error
	}{
		{by: "root", q: ReachQuery{From: "anna"}, want: []string{
			"[] [book desk nas] 0+3 [nas] at * by 1",
			"[] [cam00 cam01 cam02 cam03 cam04 cam05 cam06 cam07 cam08 cam09] 0+15 [camera] at tcp:80,tcp:554,icmp by 2,3",
			"[] [door] 0+1 [door] at tcp:80 by 3",
		}},
		{by: "anna", q: ReachQuery{}, want: []string{
			"[] [book desk nas] 0+3 [nas] at * by 1",
			"[] [cam00 cam01 cam02 cam03 cam04 cam05 cam06 cam07 cam08 cam09] 0+15 [camera] at tcp:80,tcp:554,icmp by 2,3",
			"[] [door] 0+1 [door] at tcp:80 by 3",
		}},
		{by: "anna", q: ReachQuery{From: "desk"}, want: []string{
			"[] [book nas] 0+2 [nas] at * by 1",
			"[] [cam00 cam01 cam02 cam03 cam04 cam05 cam06 cam07 cam08 cam09] 0+15 [camera] at tcp:80,tcp:554,icmp by 2,3",
			"[] [door] 0+1 [door] at tcp:80 by 3",
		}},
		{by: "anna", q: ReachQuery{From: "nas"}},
		{by: "anna", q: ReachQuery{To: "nas"}, want: []string{"[anna] [] 1+0 [] at * by 1"}},
		{by: "root", q: ReachQuery{To: "cam03"}, want: []string{
			"[admin] [] 1+0 [] at * by 1",
			"[] [door] 0+1 [door] at tcp:554,icmp by 2",
			"[anna] [] 1+0 [] at tcp:80,tcp:554,icmp by 2,3",
			"[ben] [] 1+0 [] at tcp:80 by 3",
		}},
		{by: "root", q: ReachQuery{To: "device:door"}, want: []string{"[admin] [] 1+0 [] at * by 1", "[anna ben] [] 2+0 [] at tcp:80 by 3"}},
		{by: "olga", q: ReachQuery{To: "cam03"}},
		{by: "olga", q: ReachQuery{From: "user:anna"}, err: ErrNotFound},
		{by: "olga", q: ReachQuery{To: "door"}, err: ErrNotFound},
		{by: "ben", q: ReachQuery{From: "anna"}, err: ErrNotFound},
		{by: "ben", q: ReachQuery{From: "user:anna"}, err: ErrNotFound},
		{by: "ben", q: ReachQuery{From: "user:nobody"}, err: ErrNotFound},
		{by: "ben", q: ReachQuery{From: "desk"}, err: ErrNotFound},
		{by: "ben", q: ReachQuery{To: "cam03"}, err: ErrNotFound},
		{by: "root", q: ReachQuery{}, err: ErrInvalid},
		{by: "root", q: ReachQuery{From: "anna", To: "door"}, err: ErrInvalid},
		{by: "root", q: ReachQuery{From: "anna", Cursor: "x"}, err: ErrInvalid},
		{by: "root", q: ReachQuery{From: "anna", Cursor: "900"}},
	} {
		var got []string
		q := c.q
		for page := 0; ; page++ {
			q.Limit = 1 + page
			r, err := s.Reach(t.Context(), actor[c.by], q)
			if !errors.Is(err, c.err) {
				t.Errorf("%s %+v: %v, want %v", c.by, c.q, err, c.err)
			}
			if r.Partial != (c.by == "olga" && err == nil) {
				t.Errorf("%s %+v: partial %v", c.by, c.q, r.Partial)
			}
			for _, g := range r.Groups {
				got = append(got, g.said())
				if seen := c.by == "root"; seen != (g.By[0].Text != "") {
					t.Errorf("%s %+v: the rule is %+v", c.by, c.q, g.By[0])
				}
			}
			if q.Cursor = r.Next; r.Next == "" {
				break
			}
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s %+v:\n%s\nwant\n%s", c.by, c.q, strings.Join(got, "\n"), strings.Join(c.want, "\n"))
		}
	}
	// "user:ben" and "user:nobody" differ in nothing but the name for who may not know.
	_, known := s.Reach(t.Context(), actor["ben"], ReachQuery{From: "user:anna"})
	_, unknown := s.Reach(t.Context(), actor["ben"], ReachQuery{From: "user:zora"})
	if strings.ReplaceAll(known.Error(), "anna", "zora") != unknown.Error() {
		t.Errorf("%v, and %v", known, unknown)
	}
}

// BenchmarkReach is over 200 rules, 700 classes and 10,000 devices.
func BenchmarkReach(b *testing.B) {
	s := openSite(b, func(o *Options) { o.Log = nil })
	s.camera("cam")
	fill(s.index, 10_000)
	if _, err := s.set(largePolicy(b, 200)); err != nil {
		b.Fatal(err)
	}
	for _, q := range []ReachQuery{{From: "user:admin"}, {To: "cam"}} {
		b.Run(fmt.Sprintf("%+v", q), func(b *testing.B) {
			for b.Loop() {
				if _, err := s.Reach(b.Context(), Root(), q); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
