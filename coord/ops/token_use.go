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

// The times and addresses of the uses of tokens are collected in memory and written
// once a minute, so that a request costs no write. The audit records the first use of a
// token, and each address from which it was not used before.

// maxTokenAddrs is how many addresses are known of a token, and how many new ones a
// minute has; of more the last ones.
const maxTokenAddrs = 16

// tokenUses are those of the last minute.
type tokenUses struct {
	mu   sync.Mutex          // guards the following
	uses map[string]tokenUse // by token id; there are no others than those of live tokens
}

type tokenUse struct {
	at   time.Time
	from []string // the last one first
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

// with is a token as it was used last.
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

// addrsOf is both lists in one, each address once.
func addrsOf(last, before []string) []string {
	all := slices.Clone(last)
	for _, a := range before {
		if !slices.Contains(all, a) {
			all = append(all, a)
		}
	}
	return all[:min(len(all), maxTokenAddrs)]
}

// flushTokenUses writes what was gathered.
func (s *Service) flushTokenUses(ctx context.Context) error {
	s.uses.mu.Lock()
	uses := s.uses.uses
	s.uses.uses = nil
	s.uses.mu.Unlock()
	if len(uses) == 0 {
		return nil
	}
	_, err := Do(ctx, s, System(), noteTokenUses{uses})
	if err != nil { // the next time, then
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

// noteTokenUses records uses of tokens.
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
				from, _ := netip.ParseAddr(a) // it was one
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

// tokenUsed is a token's use in the audit.
type tokenUsed struct {
	First bool `json:"first"` // it was never used before; else not from this address
}
