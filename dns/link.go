package dns

import "time"

// linkQuiet is how long the network must be stable after a change.
const linkQuiet = 250 * time.Millisecond

// LinkChanged tells the resolver that the machine changed networks or woke from sleep.
// The resolver reads the upstreams again, reconnects, and drops cached answers from the
// old network. Calls in quick succession count as one. It returns at once.
func (s *Server) LinkChanged() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	if s.link == nil {
		s.link = time.AfterFunc(linkQuiet, func() {
			s.fwd.conf.forget()
			s.linkChanged()
		})
		return
	}
	s.link.Reset(linkQuiet)
}

// linkChanged applies the change; it also runs when resolv.conf names other resolvers
// than before.
func (s *Server) linkChanged() {
	s.start(func() {
		s.fwd.reset()
		s.forget()
		s.portal.moved()
	})
}
