package ops

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"weft/coord/policy"
	"weft/coord/store"
)

// AccessQuery asks whether a person or a device may reach a port of a device.
type AccessQuery struct {
	From string // a person or a device: "anna", "user:anna", "kitchen-pi", "device:kitchen-pi"
	To   string // DEVICE:PORT, DEVICE:PORT/udp or DEVICE/icmp
}

// Access is the answer to an AccessQuery by the policy. It does not say whether a program listens
// on the port.
type Access struct {
	From  string `json:"from"` // user:NAME or device:NAME
	To    string `json:"to"`   // name of the device
	Proto string `json:"proto"`
	Port  uint16 `json:"port"` // 0 for icmp
	policy.Decision
	Why string `json:"why"` // for people
	// Notes are further facts for people that do not change the answer, for example that one of
	// the devices is offline.
	Notes []string `json:"notes"`
}

// CanReach returns whether a person or a device may reach a port of a device, and which rule
// decides. For a person the answer is about the person's devices without tags.
func (s *Service) CanReach(ctx context.Context, a Actor, q AccessQuery) (Access, error) {
	if err := opPolicyRead.asks(a); err != nil {
		return Access{}, err
	}
	to, err := policy.ParseTarget(strings.TrimSpace(q.To), "")
	if err != nil {
		return Access{}, Invalid("%v", err)
	}
	var out Access
	err = s.store.Read(ctx, func(r *store.Reader) error {
		w := newWorld(s, r)
		src, from, err := w.source(a, strings.TrimSpace(q.From))
		if err != nil {
			return err
		}
		dst, err := w.seen(a, strings.TrimPrefix(to.Who, "device:"))
		if err != nil {
			return err
		}
		at, err := w.subject(dst.UserID, dst.Tags)
		if err != nil {
			return err
		}
		d := s.index.currentPolicy().Explain(src, at, to.Proto, to.Port)
		out = Access{From: "user:" + src.User, To: dst.Name, Proto: to.Proto, Port: to.Port, Decision: d, Why: d.Why(), Notes: []string{}}
		if src.Suspended && len(src.Tags) == 0 {
			out.Why = src.User + " is suspended: the devices of " + src.User + " without tags reach nothing"
			if from != nil && from.Overdue {
				out.Why = from.Name + " has to be signed in again, and reaches nothing until then; run there: weft up"
			}
		}
		if from != nil {
			out.From = "device:" + from.Name
			out.Notes = append(out.Notes, s.notesOn(*from)...)
		} else if !s.index.hasUntagged(src.User) {
			out.Notes = append(out.Notes, fmt.Sprintf("%s has no device without tags: devices with tags act as their tags, not as %s", src.User, src.User))
		}
		if from == nil || from.ID != dst.ID {
			out.Notes = append(out.Notes, s.notesOn(dst)...)
		}
		return nil
	})
	return out, err
}

// notesOn returns facts about a device that matter beside the policy: that it is offline, or that
// its certificate has ended.
func (s *Service) notesOn(n store.Node) (notes []string) {
	if st := s.stateOf(n.ID, n.Seen); !st.Online && !s.unsure(n.ID) {
		notes = append(notes, n.Name+" is offline: that does not change the answer")
	}
	if n.Expires.Before(s.now()) {
		notes = append(notes, fmt.Sprintf("the certificate of %s ended on %s: other devices refuse it until it has renewed the certificate, which it does when it reaches the server", n.Name, n.Expires.UTC().Format("2 January 2006")))
	}
	return notes
}

// source finds a person or a device by a word of AccessQuery.From. The device is nil for a
// person.
func (w *world) source(a Actor, word string) (policy.Subject, *store.Node, error) {
	none := policy.Subject{}
	kind, name, ok := strings.Cut(word, ":")
	switch {
	case word == "":
		return none, nil, Invalid("from: name a person or a device")
	case ok && (kind == "tag" || kind == "group"):
		return none, nil, Invalid("%s: want a person or a device", printable(word, 80))
	case !ok || kind != "user" && kind != "device":
		kind, name = "", word
	}
	var user, device bool
	var subject policy.Subject
	var n store.Node
	var err error
	if kind != "device" && (len(a.Tags) == 0 || kind == "user") {
		if subject, user, err = w.User(name); err != nil {
			return none, nil, err
		}
	}
	if kind != "user" {
		n, err = w.seen(a, name)
		if device = err == nil; err != nil && !isNotFound(err) {
			return none, nil, err
		}
	}
	switch {
	case user && device:
		return none, nil, Invalid("%s is a person and a device: say user:%s or device:%s", name, name, name)
	case user:
		return subject, nil, nil
	case device:
		subject, err = w.subject(n.UserID, n.Tags)
		subject.Suspended = subject.Suspended || n.Overdue
		return subject, &n, err
	case kind != "":
		return none, nil, About(Kind(kind), name, ErrNotFound)
	}
	return none, nil, aboutError{KindWho, fmt.Sprintf("no person and no device %q", printable(name, 80)), ErrNotFound}
}

// seen finds a device that an actor may see.
func (w *world) seen(a Actor, word string) (store.Node, error) {
	n, err := w.device(word)
	if err == nil {
		err = opDeviceRead.authorize(a, deviceTarget(n))
	}
	if err != nil {
		return store.Node{}, About(KindDevice, word, err)
	}
	return n, nil
}

// hasUntagged reports whether a user has a device without tags.
func (x *index) hasUntagged(user string) bool {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return slices.ContainsFunc(x.list, func(c *class) bool {
		return c.count > 0 && c.subject.User == user && len(c.subject.Tags) == 0
	})
}

// currentPolicy returns the policy in force.
func (x *index) currentPolicy() *policy.Policy {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.policy
}
