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

// Refusals go into the audit too, but not one by one: unauthenticated clients can cause
// any number of them. They are counted by minute and source, and the counts are
// recorded when the minute is over. So are the requests of devices to be let in, which
// anybody can make: they are counted as refusals without a reason.

// maxRefusals bounds the number of counts, and so the records that can be added to the
// audit in a minute. maxUnknown is the share of unauthenticated clients, who leave room
// for the refusals of users. Refusals of further sources are counted together, without
// a source.
const (
	maxRefusals = 100
	maxUnknown  = maxRefusals / 2
)

// refusals counts what was refused.
type refusals struct {
	mu     sync.Mutex // guards the following
	counts map[refusal]uint32
	// strangers are how many of them are of no user.
	strangers int
}

// refusal is what is counted together.
type refusal struct {
	minute int64 // since 1970
	via    Via
	from   netip.Addr
	userID string // of the actor, "" for a stranger
	user   string
	role   Role
	op     string
	about  string // id of the user that it was about, "" for nobody that there is
	name   string
	why    string
}

// add counts one refusal. t is a user, or nothing.
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
		if len(r.counts) >= 2*maxRefusals { // nothing could be written for long
			return
		}
	}
	if _, ok := r.counts[k]; !ok && k.userID == "" {
		r.strangers++
	}
	r.counts[k] += min(n, ^uint32(0)-r.counts[k])
}

// take removes the counts of the minutes before now's, or all.
func (r *refusals) take(now time.Time, all bool) map[refusal]uint32 {
	r.mu.Lock()
	defer r.mu.Unlock()
	taken := map[refusal]uint32{}
	for k, n := range r.counts {
		if all || k.minute != now.Unix()/60 { // one after now is of a clock that was put back
			taken[k] = n
			delete(r.counts, k)
			if k.userID == "" {
				r.strangers--
			}
		}
	}
	return taken
}

// SourceOf returns the address by which refusals are counted: for IPv6 the first one of
// its /64, since whoever has one address of a /64 has all of them.
func SourceOf(a netip.Addr) netip.Addr {
	if a.Is6() && !a.Is4In6() {
		p, _ := a.WithZone("").Prefix(64) // 64 is in range
		return p.Addr()
	}
	return a.Unmap()
}

// Refused counts what the console, which checks passwords, has refused: command c of
// a, that was about u (the zero value for nobody that there is). why is in a few words
// and has nothing in it that somebody typed.
func (s *Service) Refused(a Actor, c interface{ operation() *Operation }, u store.User, why string) {
	s.refusals.add(s.now(), a, c.operation(), userTarget(u), why)
}

// RefusedRead counts that an actor was not allowed to read; operation is the name in
// Operations. Do counts the refusals of commands.
func (s *Service) RefusedRead(a Actor, operation string) {
	for _, o := range Operations {
		if o.Name == operation && !o.Writes {
			s.refusals.add(s.now(), a, o, target{}, "not allowed")
		}
	}
}

// flushRefusals records the refusals of the minutes that are over, or all.
func (s *Service) flushRefusals(ctx context.Context, all bool) error {
	counts := s.refusals.take(s.now(), all)
	if len(counts) == 0 {
		return nil
	}
	_, err := Do(ctx, s, System(), noteRefusals{counts})
	if err != nil { // the next time, then
		s.refusals.mu.Lock()
		defer s.refusals.mu.Unlock()
		for k, n := range counts {
			s.refusals.addLocked(k, n)
		}
	}
	return err
}

// noteRefusals records what was refused.
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
