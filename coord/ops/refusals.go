package ops

import (
	"cmp"
	"context"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"weft/coord/store"
)

// Refusals go into the audit too, but not one by one, because unauthenticated clients can cause
// any number of them. They are counted by minute and source, and the counts are recorded when
// the minute is over. Requests of devices to join, which anybody can make, are counted in the
// same way, as refusals without a reason.

// maxRefusals bounds the number of counts, and so the records that are added to the audit in a
// minute. Unauthenticated clients can use maxUnknown of them, which leaves room for the refusals
// of users. Refusals beyond these bounds are counted together, without a source.
const (
	maxRefusals = 100
	maxUnknown  = maxRefusals / 2
)

// refusals counts refusals.
type refusals struct {
	mu     sync.Mutex // guards the following
	counts map[refusal]uint32
	// strangers is the number of counts for actors that are not users.
	strangers int
}

// refusal has what equal refusals, which are counted together, have in common.
type refusal struct {
	minute int64 // since 1970
	via    Via
	from   netip.Addr
	userID string // of the actor, "" if the actor is not a user
	user   string
	role   Role
	op     string
	about  string // id of the user that it was about, "" if it was about no existing user
	name   string // of that user
	why    string
}

// add counts one refusal. t is a user, or the zero target.
func (r *refusals) add(now time.Time, a Actor, o *Operation, t target, why string) {
	k := refusal{
		minute: now.Unix() / 60, via: a.Via, from: SourceOf(a.From), userID: a.UserID, user: a.User, role: a.Role,
		op: o.Name, about: t.id, name: t.name, why: why,
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.addLocked(k, 1)
}

func (r *refusals) addLocked(k refusal, n uint32) {
	if r.counts == nil {
		r.counts = map[refusal]uint32{}
	}
	if _, ok := r.counts[k]; !ok && (len(r.counts) >= maxRefusals || k.userID == "" && r.strangers >= maxUnknown) {
		many := refusal{minute: k.minute, via: k.via, op: k.op}
		if k.why != "" {
			many.why = "of many, from many places"
		}
		k = many
		if len(r.counts) >= 2*maxRefusals { // the counts could not be written for a long time
			return
		}
	}
	if _, ok := r.counts[k]; !ok && k.userID == "" {
		r.strangers++
	}
	r.counts[k] += min(n, ^uint32(0)-r.counts[k])
}

// take removes and returns the counts of minutes that are over, or all counts.
func (r *refusals) take(now time.Time, all bool) map[refusal]uint32 {
	r.mu.Lock()
	defer r.mu.Unlock()
	taken := map[refusal]uint32{}
	for k, n := range r.counts {
		if all || k.minute != now.Unix()/60 { // a later minute means that the clock was set back
			taken[k] = n
			delete(r.counts, k)
			if k.userID == "" {
				r.strangers--
			}
		}
	}
	return taken
}

// SourceOf returns the address by which refusals and attempts are counted: for IPv6 the first
// address of the /64, because a client that has one address of a /64 usually has all of them.
func SourceOf(a netip.Addr) netip.Addr {
	if a.Is6() && !a.Is4In6() {
		p, _ := a.WithZone("").Prefix(64) // 64 is in range
		return p.Addr()
	}
	return a.Unmap()
}

// Refused counts a refusal by the console, which checks passwords itself: actor a was refused
// command c about user u, which is the zero value if there is no such user. why gives the reason
// in a few words, and must not contain anything that somebody typed.
func (s *Service) Refused(a Actor, c interface{ operation() *Operation }, u store.User, why string) {
	s.refusals.add(s.now(), a, c.operation(), userTarget(u), why)
}

// RefusedRead counts that an actor was refused a read. operation is a name in Operations. The
// refusals of commands are counted by Do.
func (s *Service) RefusedRead(a Actor, operation string) {
	for _, o := range Operations {
		if o.Name == operation && !o.Writes {
			s.refusals.add(s.now(), a, o, target{}, "not allowed")
		}
	}
}

// flushRefusals records the refusals of minutes that are over, or all of them, in the audit.
func (s *Service) flushRefusals(ctx context.Context, all bool) error {
	counts := s.refusals.take(s.now(), all)
	if len(counts) == 0 {
		return nil
	}
	_, err := Do(ctx, s, System(), noteRefusals{counts})
	if err != nil { // put the counts back for the next time
		s.refusals.mu.Lock()
		defer s.refusals.mu.Unlock()
		for k, n := range counts {
			s.refusals.addLocked(k, n)
		}
	}
	return err
}

// noteRefusals records counts of refusals.
type noteRefusals struct{ counts map[refusal]uint32 }

func (noteRefusals) operation() *Operation { return opRefusals }

func (c noteRefusals) run(tx *Tx) (none struct{}, err error) {
	if err := tx.may(target{}); err != nil {
		return none, err
	}
	for _, k := range slices.SortedFunc(maps.Keys(c.counts), func(a, b refusal) int { return cmp.Or(cmp.Compare(a.minute, b.minute), cmp.Compare(a.why, b.why)) }) {
		n := c.counts[k]
		r := record{
			actor: Actor{UserID: k.userID, User: k.user, Role: k.role, Via: k.via, From: k.from}, op: k.op,
			at: time.Unix(k.minute*60, 0), refused: k.why, count: n,
		}
		if k.about != "" {
			r.target = target{kind: "user", id: k.about, name: k.name}
		}
		tx.Note(r)
	}
	return none, nil
}
