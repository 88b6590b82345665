package ops

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"weft/coord/policy"
	"weft/coord/store"
)

// PolicyCheck says what a valid policy would change if it were put into force now.
type PolicyCheck struct {
	Good     bool            `json:"good"` // always true, because a policy with mistakes is an error instead
	Rules    int             `json:"rules"`
	Tests    int             `json:"tests"`    // all of them passed
	Warnings []policy.Remark `json:"warnings"` // such as names that do not exist
	// Gains is access that the policy would add, Losses access that it would remove: at most
	// maxPolicyChanges of each, those between the most kinds of devices first.
	Gains      []AccessChange `json:"gains"`
	Losses     []AccessChange `json:"losses"`
	MoreGains  int            `json:"more_gains"`  // how many are not in Gains
	MoreLosses int            `json:"more_losses"` // how many are not in Losses
	// AESAdded is access that would need AES and does not need it now, including new access;
	// AESRemoved is access that would no longer need it. Both are bounded like Gains.
	AESAdded       []AccessChange `json:"aes_added"`
	AESRemoved     []AccessChange `json:"aes_removed"`
	MoreAESAdded   int            `json:"more_aes_added"`
	MoreAESRemoved int            `json:"more_aes_removed"`
	// TagOwners are the tags whose owners would change: see Policy.TagOwners. It is not
	// nil, and has at most maxPolicyChanges.
	TagOwners []policy.TagChange `json:"tag_owners"`
}

// Bounds of a PolicyCheck.
const (
	maxPolicyChanges = 100
	maxParty         = 10 // names of each kind
)

// AccessChange is access from each of From to each of To, within Scope, at Ports.
type AccessChange struct {
	From  Party    `json:"from"`
	To    Party    `json:"to"`
	Scope string   `json:"scope"` // "" for all pairs, "own" for pairs with the same owner, "others" for pairs with different owners
	Ports []string `json:"ports"` // as written in rules, or "other protocols"
}

// Party are people and devices: how many, and the names of some of them, sorted. In From, a
// person stands for the person's devices without tags.
type Party struct {
	Users       []string `json:"users"`
	UserCount   int      `json:"user_count"`
	Devices     []string `json:"devices"`
	DeviceCount int      `json:"device_count"`
}

// CheckPolicy returns what a policy would change, or an error with the mistakes in it. It changes
// nothing. Because the answer names people and devices, actors limited to tags are refused.
func (s *Service) CheckPolicy(ctx context.Context, a Actor, c SetPolicy) (PolicyCheck, error) {
	if err := opPolicyRead.asks(a); err != nil {
		return PolicyCheck{}, err
	}
	if len(a.Tags) > 0 {
		return PolicyCheck{}, fmt.Errorf("%s for some tags only: %w", opPolicyRead.Name, ErrForbidden)
	}
	var out PolicyCheck
	err := s.store.Read(ctx, func(r *store.Reader) error {
		n, err := r.Network()
		if err != nil {
			return err
		}
		w := newWorld(s, r)
		p, err := c.check(w, policyRevision(n.Policy))
		if err != nil {
			return err
		}
		out = PolicyCheck{Good: true, Rules: len(p.Rules), Tests: len(p.Tests)}
		unknown, err := p.Unknown(w)
		if err != nil {
			return err
		}
		out.Warnings = append([]policy.Remark{}, unknown...)
		return s.preview(w, p, &out)
	})
	return out, err
}

// preview compares a policy with the one in force.
func (s *Service) preview(w *world, p *policy.Policy, out *PolicyCheck) error {
	users, err := w.names()
	if err != nil {
		return err
	}
	now, kinds := s.index.kinds()
	there := map[string]bool{}
	for _, k := range kinds {
		if len(k.subject.Tags) == 0 {
			there[k.subject.User] = true
		}
	}
	for id, name := range users { // people without devices that act for them
		if !there[name] {
			kinds = append(kinds, kind{userID: id, subject: policy.Subject{User: name}})
		}
	}
	subjects := make([]policy.Subject, len(kinds))
	for i, k := range kinds {
		if subjects[i], err = w.subject(k.userID, k.subject.Tags); err != nil {
			return err
		}
		kinds[i].subject = subjects[i]
	}
	tags := policy.DiffTagOwners(now, p)
	out.TagOwners = append([]policy.TagChange{}, tags[:min(len(tags), maxPolicyChanges)]...)
	changes := policy.Diff(now, p, subjects)
	l := &lister{w: w, kinds: kinds, names: map[string][]string{}}
	for _, side := range []struct {
		changes []policy.Change
		list    *[]AccessChange
		more    *int
	}{
		{changes.Gains, &out.Gains, &out.MoreGains},
		{changes.Losses, &out.Losses, &out.MoreLosses},
		{changes.AESAdded, &out.AESAdded, &out.MoreAESAdded},
		{changes.AESRemoved, &out.AESRemoved, &out.MoreAESRemoved},
	} {
		if *side.list, *side.more, err = l.list(side.changes); err != nil {
			return err
		}
	}
	return nil
}

// kind is a class of devices, which the policy does not distinguish, or a person without devices.
type kind struct {
	key     string // of the class; "" for a person without devices
	userID  string
	subject policy.Subject
	count   int
}

// kinds returns the policy in force and the kinds of all devices.
func (x *index) kinds() (*policy.Policy, []kind) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	var list []kind
	for _, c := range x.list {
		if c.count > 0 {
			list = append(list, kind{c.key, c.userID, c.subject, c.count})
		}
	}
	return x.policy, list
}

// lister turns changes between kinds into names of people and devices.
type lister struct {
	w     *world
	kinds []kind
	names map[string][]string // at most maxParty names of devices, by the key of their class
	// without is the name of a device to leave out of lists; counts leave it out already.
	without string
}

func (l *lister) list(changes []policy.Change) (list []AccessChange, more int, err error) {
	list = []AccessChange{}
	for _, c := range changes {
		var from, to Party
		if to, err = l.devices(c.To); err != nil {
			return nil, 0, err
		}
		if to.DeviceCount == 0 {
			continue // there is no device to reach
		}
		if len(list) == maxPolicyChanges {
			more++
			continue
		}
		if from, err = l.sources(c.From); err != nil {
			return nil, 0, err
		}
		list = append(list, AccessChange{from, to, string(c.Scope), strings.Split(c.Ports, ", ")})
	}
	return list, more, nil
}

// sources returns kinds as people, in place of their devices without tags, and devices with tags.
func (l *lister) sources(of []int) (Party, error) {
	var people []string
	var tagged []int
	for _, i := range of {
		if s := l.kinds[i].subject; len(s.Tags) == 0 && s.User != "" {
			people = append(people, s.User)
		} else {
			tagged = append(tagged, i)
		}
	}
	p, err := l.devices(tagged)
	slices.Sort(people)
	p.UserCount, p.Users = len(people), append(p.Users, people[:min(len(people), maxParty)]...)
	return p, err
}

// devices returns the devices of kinds.
func (l *lister) devices(of []int) (Party, error) {
	p := Party{Users: []string{}, Devices: []string{}}
	for _, i := range of {
		k := l.kinds[i]
		p.DeviceCount += k.count
		if k.count == 0 || len(p.Devices) >= maxParty {
			continue
		}
		names, known := l.names[k.key]
		if !known {
			var err error
			if names, err = l.w.r.ClassNames(l.w.s.network, k.key, maxParty); err != nil {
				return p, err
			}
			names = slices.DeleteFunc(names, func(name string) bool { return name == l.without })
			l.names[k.key] = names
		}
		p.Devices = append(p.Devices, names...)
	}
	slices.Sort(p.Devices)
	p.Devices = p.Devices[:min(len(p.Devices), maxParty)]
	return p, nil
}
