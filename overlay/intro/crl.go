package intro

import (
	"fmt"

	"weft/overlay/cert"
)

// Whoever holds the newer revocation list sends it, right after the
// introduction, in chunks: a burst at a time, the next burst when the receiver
// asks for it, so that the receiver's queue bounds what is under way. A burst
// may reach a caller that has not read accept yet: it fits maxHandshakeBytes.
const (
	crlChunk = 10 << 10 // 13.7 KB as JSON
	crlBurst = 4

	// maxCRLHeld bounds the lists in the middle of arriving, all sessions.
	maxCRLHeld = 4 * cert.MaxCRL
)

// crlTransfer is what a session's worker knows of lists on their way.
type crlTransfer struct {
	number uint64 // of the list arriving
	total  int
	buf    []byte
	sent   int // bytes of our list, to bound what the peer may ask for
}

// offerCRL starts sending our list if it is newer than the peer's.
func (s *Session) offerCRL() error {
	if s.sw.cfg.CRL == nil {
		return nil
	}
	number, _ := s.sw.cfg.CRL()
	if number <= s.Remote.CRL {
		return nil
	}
	return s.sendCRL(number, 0)
}

// sendCRL sends one burst from offset on, or from the start if the list has
// changed since. What one session may ask for is bounded: a few times the
// list.
func (s *Session) sendCRL(number uint64, offset int) error {
	if s.sw.cfg.CRL == nil {
		return nil
	}
	now, der := s.sw.cfg.CRL()
	if now != number {
		number, offset = now, 0
	}
	if offset < 0 || offset >= len(der) || s.crl.sent > 3*len(der)+cert.MaxCRL {
		return nil
	}
	for i := range crlBurst {
		end := min(offset+crlChunk, len(der))
		m := Message{Type: TypeCRL, Number: number, Total: len(der), Offset: offset, Data: der[offset:end]}
		m.Pause = i == crlBurst-1 && end < len(der)
		if err := s.write(m); err != nil {
			return err
		}
		s.crl.sent += end - offset
		if offset = end; offset == len(der) {
			return nil
		}
	}
	return nil
}

// takeCRL gathers the peer's list. A list that is not newer, or for which
// there is no room now, is ignored: there will be other introductions.
func (s *Session) takeCRL(m Message) error {
	sw := s.sw
	if sw.cfg.CRL == nil || sw.cfg.OnCRL == nil {
		return nil
	}
	if own, _ := sw.cfg.CRL(); m.Number <= own {
		return nil
	}
	if m.Total <= 0 || m.Total > cert.MaxCRL || m.Offset < 0 || len(m.Data) == 0 || m.Offset+len(m.Data) > m.Total {
		return fmt.Errorf("%w: revocation list of %d bytes, %d at %d", ErrBroken, m.Total, len(m.Data), m.Offset)
	}
	if m.Offset == 0 {
		s.crl.buf = nil
		if !sw.reserveCRL(s, m.Total) {
			s.crl.total = 0
			return nil
		}
		s.crl.number, s.crl.total = m.Number, m.Total
	}
	if m.Number != s.crl.number || m.Total != s.crl.total || m.Offset != len(s.crl.buf) {
		return nil
	}
	s.crl.buf = append(s.crl.buf, m.Data...)
	if len(s.crl.buf) == m.Total {
		der := s.crl.buf
		s.crl.buf, s.crl.total = nil, 0
		sw.cfg.OnCRL(der)
		sw.reserveCRL(s, 0)
		return nil
	}
	if m.Pause {
		return s.write(Message{Type: TypeCRLNext, Number: m.Number, Offset: len(s.crl.buf)})
	}
	return nil
}

// reserveCRL makes room for a list of n bytes to arrive in the session, in
// place of what it had reserved.
func (sw *Switch) reserveCRL(s *Session, n int) bool {
	sw.mu.Lock()
	defer sw.mu.Unlock()
	if s.err != nil || sw.crlHeld-s.crlRoom+n > maxCRLHeld {
		return false
	}
	sw.crlHeld += n - s.crlRoom
	s.crlRoom = n
	return true
}
