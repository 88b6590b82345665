package dns

import "time"

// linkQuiet is how long the network must have been still after a change.
const linkQuiet = 250 * time.Millisecond

// LinkChanged tells the resolver that the machine's network is another one, or
// that it woke from sleep: resolvers are read and reached anew, and nothing
// that was remembered from the old network is answered. Many calls in a row
// are one. It returns at once.
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

// linkChanged is the change itself; it also happens when resolv.conf names
// other resolvers than before.
func (s *Server) linkChanged() {
	s.start(func() {
		s.fwd.reset()
		s.forget()
		s.portal.moved()
	})
}
