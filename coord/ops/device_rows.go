package ops

import (
	"context"
	"strings"
	"sync"

	"weft/coord/store"
)

// deviceRows holds the rows of all devices while somebody looks at lists of them, so that a
// page that is open, and asks again at every change of presence, does not have the database
// read all of them as often. They are read again once something was written, and forgotten
// when nobody has asked for a while.
type deviceRows struct {
	mu   sync.Mutex // guards the following
	held *heldRows  // nil for none
	used bool       // since the last call of forget
}

// heldRows are never changed but for words.
type heldRows struct {
	commits uint64       // see store.Store.Commits
	nodes   []store.Node // by name
	once    sync.Once
	words   []string // of each, what words are looked for in; see Service.wordsOf
}

// deviceRows returns the rows of all devices, by name; they are not to be changed. Nobody
// waits for another one who reads them.
func (s *Service) deviceRows(ctx context.Context) (*heldRows, error) {
	commits := s.store.Commits()
	s.lists.mu.Lock()
	held := s.lists.held
	s.lists.used = true
	s.lists.mu.Unlock()
	if held != nil && held.commits == commits {
		return held, nil
	}
	held = &heldRows{commits: commits}
	err := s.store.Read(ctx, func(r *store.Reader) error {
		return r.EachListed(s.network, store.NodePage{Ending: s.asksIssued()}, func(n store.Node) error {
			held.nodes = append(held.nodes, n)
			return nil
		})
	})
	if err != nil {
		return nil, err
	}
	s.lists.mu.Lock()
	defer s.lists.mu.Unlock()
	if s.lists.held == nil || s.lists.held.commits <= commits {
		s.lists.held = held
	}
	return held, nil
}

// forget is called once a minute.
func (r *deviceRows) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.used {
		r.held = nil
	}
	r.used = false
}

// wordsOf returns what a list shows of each row but its relay, as texts are compared.
func (s *Service) wordsOf(h *heldRows) []string {
	h.once.Do(func() {
		h.words = make([]string, len(h.nodes))
		for i, d := range h.nodes {
			list := []string{d.Name + "." + s.suffix, UnicodeName(d.Name) + "." + s.suffix, d.IPv4.String(), store.IPv6Of(s.ipv6, d.IPv4).String(), d.OS, SystemName(d.OS), d.User, d.Software}
			for _, t := range d.Tags {
				list = append(list, "#"+t)
			}
			h.words[i] = folded(strings.Join(list, "\n"))
		}
	})
	return h.words
}
