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

// When and from which addresses API tokens are used is collected in memory and written once a
// minute, so that a request does not cost a write. The audit records the first use of a token,
// and its first use from each address.

// maxTokenAddrs is how many addresses are remembered for a token, and how many new ones are
// collected in a minute. If there are more, the latest ones are kept.
const maxTokenAddrs = 16

// tokenUses are the uses that have not been written yet.
type tokenUses struct {
	mu   sync.Mutex          // guards the following
	uses map[string]tokenUse // by token id, of valid tokens only
}

type tokenUse struct {
	at   time.Time
	from []string // the latest address first
}

func (u *tokenUses) add(t store.Token, now time.Time, from netip.Addr) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.uses == nil {
		u.uses = map[string]tokenUse{}
	}
	use := u.uses[t.ID]
	if use.at.Before(now) {
		use.at = now
	}
	if from.IsValid() {
		use.from = addrsOf([]string{SourceOf(from).String()}, use.from)
	}
	u.uses[t.ID] = use
}

// with returns a token with the uses that have not been written yet.
func (u *tokenUses) with(t store.Token) store.Token {
	u.mu.Lock()
	use, ok := u.uses[t.ID]
	u.mu.Unlock()
	if ok {
		at := use.at.UTC().Truncate(time.Minute)
		if t.Used == nil || t.Used.Before(at) {
			t.Used = &at
		}
		t.From = addrsOf(use.from, t.From)
	}
	return t
}

// addrsOf joins two lists of addresses without duplicates, at most maxTokenAddrs.
func addrsOf(last, before []string) []string {
	all := slices.Clone(last)
	for _, a := range before {
		if !slices.Contains(all, a) {
			all = append(all, a)
		}
	}
	return all[:min(len(all), maxTokenAddrs)]
}

// flushTokenUses writes the collected uses.
func (s *Service) flushTokenUses(ctx context.Context) error {
	s.uses.mu.Lock()
	uses := s.uses.uses
	s.uses.uses = nil
	s.uses.mu.Unlock()
	if len(uses) == 0 {
		return nil
	}
	_, err := Do(ctx, s, System(), noteTokenUses{uses})
	if err != nil { // put the uses back for the next time
		s.uses.mu.Lock()
		defer s.uses.mu.Unlock()
		for id, now := range s.uses.uses {
			now.from = addrsOf(now.from, uses[id].from)
			uses[id] = now
		}
		s.uses.uses = uses
	}
	return err
}

// noteTokenUses stores uses of tokens, and records new ones in the audit.
type noteTokenUses struct{ uses map[string]tokenUse }

func (noteTokenUses) operation() *Operation { return opTokenUse }

func (c noteTokenUses) run(tx *Tx) (none struct{}, err error) {
	if err := tx.may(target{}); err != nil {
		return none, err
	}
	for _, id := range slices.SortedFunc(maps.Keys(c.uses), func(a, b string) int {
		return cmp.Or(c.uses[a].at.Compare(c.uses[b].at), cmp.Compare(a, b))
	}) {
		use := c.uses[id]
		t, err := tx.Token(tx.s.network, id)
		if isNotFound(err) {
			continue // deleted meanwhile
		}
		if err != nil {
			return none, err
		}
		for _, a := range slices.Backward(use.from) {
			if !slices.Contains(t.From, a) {
				from, _ := netip.ParseAddr(a) // a was made from an address
				tx.Note(record{actor: Actor{UserID: t.UserID, User: t.User, Via: ViaAPI, From: from}, op: opTokenUse.Name, target: tokenTarget(t), at: use.at, after: tokenUsed{First: t.Used == nil}})
				used := use.at
				t.Used = &used
			}
		}
		if err := tx.SetTokenUsed(tx.s.network, id, use.at.Truncate(time.Minute), addrsOf(use.from, t.From)); err != nil {
			return none, err
		}
	}
	return none, nil
}

// tokenUsed is the value of the audit record of a token's use.
type tokenUsed struct {
	First bool `json:"first"` // this is the first use at all; otherwise the first from this address
}
