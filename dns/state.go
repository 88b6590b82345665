package dns

import "strings"

// state is the data for answers: the names and the settings at one moment. It is
// immutable and replaced as a whole; answers cached under another state are no longer
// used.
type state struct {
	zone     *Zone
	settings *Settings
	ix       *index // nil while there is no configuration
	rules    *rules
}

// current returns the state of the current snapshots and builds it if one of them is
// new. Network readers call it once per batch.
func (s *Server) current() *state {
	z, set := s.cfg.Zone(), s.cfg.Settings()
	if st := s.state.Load(); st != nil && st.zone == z && st.settings == set {
		return st
	}
	return s.renew(z, set)
}

func (s *Server) renew(z *Zone, set *Settings) *state {
	s.making.Lock()
	defer s.making.Unlock()
	old := s.state.Load()
	if old != nil && old.zone == z && old.settings == set {
		return old // another goroutine was first
	}
	st := &state{zone: z, settings: set}
	apex := strings.ToLower(s.cfg.DefaultSuffix) + "."
	ready := z != nil && z.Ready && validSuffix(z.Suffix)
	if ready {
		apex = strings.ToLower(z.Suffix) + "."
	}
	switch {
	case old != nil && old.settings == set && old.rules.apex == apex:
		st.rules = old.rules
	default:
		st.rules = compile(set, apex)
		for _, p := range st.rules.problems {
			s.cfg.Log.Warn("dns: a part of the settings is not used", "part", p.Part, "why", p.Text)
		}
	}
	if ready {
		st.ix = newIndex(z, st.rules.ttl)
	}
	if old != nil && old.rules != st.rules {
		// New rules, new resolvers: answers of the old ones are no longer valid.
		s.cache.clear()
		s.fwd.reset()
	}
	s.state.Store(st)
	return st
}

// forget makes a new state of the same data, so that no cached answer is used again.
func (s *Server) forget() {
	s.cache.clear()
	s.hosts.clear()
	s.making.Lock()
	defer s.making.Unlock()
	if old := s.state.Load(); old != nil {
		st := *old
		s.state.Store(&st)
	}
}
