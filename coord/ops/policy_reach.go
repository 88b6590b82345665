package ops

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"weft/coord/policy"
	"weft/coord/store"
)

// ReachQuery asks what a person or a device may reach (From), or which people and devices may
// reach a device (To). If both are "" it asks what the actor may reach.
type ReachQuery struct {
	From   string // as in AccessQuery
	To     string // a device
	Cursor string // Reach.Next of the page before
	Limit  int    // groups in a page, at most maxReachPage; 0 for maxReachPage
}

const (
	maxReachPage = 100
	maxReachBy   = 10 // rules of a group
)

// Reach is one page of the answer to a ReachQuery. Devices to which the same rules apply are in
// one group, so the number of groups depends on the policy and not on the number of devices.
type Reach struct {
	From   string       `json:"from"`   // user:NAME or device:NAME, "" if the query has To
	To     string       `json:"to"`     // name of the device, "" if the query has From
	Groups []ReachGroup `json:"groups"` // in the order of their rules
	Total  int          `json:"total"`  // groups on all pages
	Next   string       `json:"next"`   // ReachQuery.Cursor for the next page, "" at the end
	// Partial says that there may be more, which the actor may not see.
	Partial bool `json:"partial"`
}

// ReachGroup are people and devices that can be reached, or that reach the device of the query,
// by the same rules. In the second case a person stands for the person's devices without tags.
type ReachGroup struct {
	Party
	Tags  []string    `json:"tags"`  // of its devices: at most maxParty, sorted
	Ports []string    `json:"ports"` // as written in rules, or "other protocols"
	By    []ReachRule `json:"by"`    // at most maxReachBy of the rules, in their order: if several open a port, the first decides
}

// ReachRule is a rule, and what it opens. Line and Text are 0 and "" if the actor may not read
// the policy.
type ReachRule struct {
	Rule  int      `json:"rule"` // from 1
	Line  int      `json:"line"`
	Text  string   `json:"text"`
	Ports []string `json:"ports"`
}

// Reach returns what a person or a device may reach by the policy in force, or which people and
// devices may reach a device. For an actor who is limited to tags the answer contains only
// devices with these tags, unless the query is about the actor or one of the actor's devices.
func (s *Service) Reach(ctx context.Context, a Actor, q ReachQuery) (Reach, error) {
	out := Reach{Groups: []ReachGroup{}}
	if err := opReachRead.asks(a); err != nil {
		return out, err
	}
	from, to := strings.TrimSpace(q.From), strings.TrimPrefix(strings.TrimSpace(q.To), "device:")
	switch {
	case from != "" && to != "":
		return out, Invalid("give from or to, not both: from asks what a person or a device reaches, to asks who reaches a device")
	case from == "" && to == "" && a.UserID != "":
		from = "user:" + a.User
	}
	start := 0
	if q.Cursor != "" {
		var err error
		if start, err = strconv.Atoi(q.Cursor); err != nil || start < 0 {
			return out, Invalid("cursor: want next of the previous page")
		}
	}
	if q.Limit <= 0 || q.Limit > maxReachPage {
		q.Limit = maxReachPage
	}
	err := s.store.Read(ctx, func(r *store.Reader) error {
		w := newWorld(s, r)
		subject, device, t, err := w.subjectOfReach(a, from, to)
		if err != nil {
			return err
		}
		p, kinds := s.index.kinds()
		if to != "" {
			out.To = device.Name
			if kinds, err = w.withPeople(kinds); err != nil {
				return err
			}
		} else if out.From = "user:" + subject.User; device != nil {
			out.From = "device:" + device.Name
		}
		if out.Partial = len(a.Tags) > 0 && t.owner != a.UserID; out.Partial {
			kinds = slices.DeleteFunc(kinds, func(k kind) bool { return !a.covers(k.subject.Tags) })
		}
		subjects := make([]policy.Subject, len(kinds))
		for i := range kinds {
			subjects[i] = kinds[i].subject
			if device != nil && kinds[i].key == device.Class {
				kinds[i].count-- // do not count the device itself
			}
		}
		l := &lister{w: w, kinds: kinds, names: map[string][]string{}}
		if device != nil {
			l.without = device.Name
		}
		var groups []policy.Group
		if to != "" {
			groups = p.Reaching(subject, subjects)
		} else {
			groups = p.Reached(subject, subjects)
		}
		groups = slices.DeleteFunc(groups, func(g policy.Group) bool {
			return !slices.ContainsFunc(g.Members, func(i int) bool {
				return kinds[i].count > 0 || to != "" && kinds[i].person()
			})
		})
		out.Total = len(groups)
		groups = groups[min(start, len(groups)):]
		if len(groups) > q.Limit {
			groups, out.Next = groups[:q.Limit], strconv.Itoa(start+q.Limit)
		}
		for _, g := range groups {
			group, err := l.reachGroup(g, p, opPolicyRead.asks(a) == nil, to != "")
			if err != nil {
				return err
			}
			out.Groups = append(out.Groups, group)
		}
		return nil
	})
	return out, err
}

// subjectOfReach finds the person or device that a query is about, and returns an error if the
// actor may not ask about it. The device is nil for a person.
func (w *world) subjectOfReach(a Actor, from, to string) (policy.Subject, *store.Node, target, error) {
	var t target
	if to != "" {
		from = "device:" + to
	}
	if name := strings.TrimPrefix(from, "user:"); opReachRead.ownerSeen(a) != "" && name != a.User {
		if name != from { // do not reveal whether there is such a user
			return policy.Subject{}, nil, t, fmt.Errorf("user %q: %w", printable(name, 80), ErrNotFound)
		}
		from = "device:" + strings.TrimPrefix(from, "device:")
	}
	subject, device, err := w.source(a, from)
	if err != nil {
		return subject, nil, t, err
	}
	if device != nil {
		t = deviceTarget(*device)
	} else {
		u, err := w.r.UserByName(w.s.network, subject.User)
		if err != nil {
			return subject, nil, t, err
		}
		t = target{kind: "user", id: u.ID, name: u.Name, owner: u.ID}
	}
	if err := opReachRead.authorize(a, t); err != nil {
		return subject, nil, t, fmt.Errorf("%q: %w", printable(from, 80), err)
	}
	return subject, device, t, nil
}

// withPeople adds kinds for people who have no devices without tags.
func (w *world) withPeople(kinds []kind) ([]kind, error) {
	users, err := w.names()
	if err != nil {
		return nil, err
	}
	there := map[string]bool{}
	for _, k := range kinds {
		if k.person() {
			there[k.subject.User] = true
		}
	}
	for _, name := range users {
		if there[name] {
			continue
		}
		subject, ok, err := w.User(name)
		if err != nil {
			return nil, err
		}
		if ok {
			kinds = append(kinds, kind{subject: subject})
		}
	}
	return kinds, nil
}

// person reports whether a kind stands for a person: devices of a user without tags.
func (k kind) person() bool { return len(k.subject.Tags) == 0 && k.subject.User != "" }

// reachGroup turns a group into names. texts says to include the texts of rules, and sources
// that the group reaches the device of the query, instead of being reached.
func (l *lister) reachGroup(g policy.Group, p *policy.Policy, texts, sources bool) (out ReachGroup, err error) {
	out = ReachGroup{Ports: strings.Split(g.Ports, ", "), Tags: []string{}, By: []ReachRule{}}
	list := l.devices
	if sources {
		list = l.sources
	}
	if out.Party, err = list(g.Members); err != nil {
		return out, err
	}
	for _, i := range g.Members {
		if l.kinds[i].count > 0 {
			out.Tags = append(out.Tags, l.kinds[i].subject.Tags...)
		}
	}
	slices.Sort(out.Tags)
	out.Tags = slices.Compact(out.Tags)
	out.Tags = out.Tags[:min(len(out.Tags), maxParty)]
	for _, i := range g.Rules[:min(len(g.Rules), maxReachBy)] {
		rule := ReachRule{Rule: i + 1, Ports: p.Rules[i].Ports}
		if texts {
			rule.Line, rule.Text = p.Rules[i].Line, p.Rules[i].String()
		}
		out.By = append(out.By, rule)
	}
	return out, nil
}
