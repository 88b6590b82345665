package intro

import (
	"fmt"
	"slices"
	"time"

	"weft/overlay/cert"
)

// The side with the newer revocation list sends it right after the introduction, in
// chunks: one burst at a time, and the next when the receiver asks for it, so that the
// receiver's queue bounds what is in flight. A burst may reach a caller that has not read
// accept yet, so it fits in maxHandshakeBytes.
const (
	crlChunk = 10 << 10 // 13.7 KB as JSON
	crlBurst = 4
)

// crlTransfer is what a session's worker knows of list transfers.
type crlTransfer struct {
	sent int  // bytes of our list that were sent, to bound what the peer may request
	junk bool // the peer's list did not verify
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

// sendCRL sends one burst from offset on, or from the start if the list has changed
// since. One session may request a few times the length of the list in all.
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

// takeCRL collects the peer's list. It ignores a list that is not newer, and requests one
// later for which there is no place now.
func (s *Session) takeCRL(m Message) error {
	sw := s.sw
	if sw.cfg.CRL == nil || sw.cfg.OnCRL == nil || s.crl.junk {
		return nil
	}
	if own, _ := sw.cfg.CRL(); m.Number <= own {
		sw.endList(s)
		return nil
	}
	if m.Total <= 0 || m.Total > cert.MaxCRL || m.Offset < 0 || len(m.Data) == 0 || m.Offset+len(m.Data) > m.Total {
		return fmt.Errorf("%w: revocation list of %d bytes, %d at %d", ErrBroken, m.Total, len(m.Data), m.Offset)
	}
	if m.Offset == 0 && !sw.beginList(s, m) {
		return nil
	}
	der, more := sw.growList(s, m)
	switch {
	case der != nil:
		sw.cfg.OnCRL(der)
		own, _ := sw.cfg.CRL()
		s.crl.junk = own < m.Number // it did not verify: do not take it again
		sw.moot(own)
	case more && m.Pause:
		return s.write(Message{Type: TypeCRLNext, Number: m.Number, Offset: m.Offset + len(m.Data)})
	}
	return nil
}

// At most listPlaces lists are received at a time. A peer that starts a list and never
// continues must not block another list, which says whom not to trust: when others wait,
// the slowest loses its place after listTurn, and is requested again when its turn comes.
// So the fastest list is not interrupted, and every list gets a turn.
const (
	listPlaces = 4
	listTurn   = 2 * time.Second
)

// list is a revocation list that is being received.
type list struct {
	number uint64
	total  int
	buf    []byte
	since  time.Time // when it got its place; starting over does not change it
}

// rate returns the speed of the transfer in bytes per second.
func (l *list) rate(now time.Time) float64 {
	return float64(len(l.buf)) / max(now.Sub(l.since), time.Second).Seconds()
}

// beginList finds a place for the list of which m is the first piece, and reports whether
// there is one. If not, the session waits for one.
func (sw *Switch) beginList(s *Session, m Message) bool {
	sw.mu.Lock()
	defer sw.mu.Unlock()
	if s.err != nil || sw.closed {
		return false
	}
	if s.list == nil {
		if len(sw.lists) >= listPlaces {
			if !slices.Contains(sw.listless, s) {
				sw.listless = append(sw.listless, s)
			}
			s.offered = m.Number
			sw.turnLocked(time.Now())
			return false
		}
		sw.placeListLocked(s)
	}
	s.list.number, s.list.total, s.list.buf = m.Number, m.Total, nil
	return true
}

func (sw *Switch) placeListLocked(s *Session) {
	sw.listless = slices.DeleteFunc(sw.listless, func(o *Session) bool { return o == s })
	sw.lists = append(sw.lists, s)
	s.list = &list{since: time.Now()}
}

// growList adds a piece, if it is the next one of a list that has a place. When the list
// is complete it returns it and frees its place.
func (sw *Switch) growList(s *Session, m Message) (der []byte, more bool) {
	sw.mu.Lock()
	defer sw.mu.Unlock()
	l := s.list
	if l == nil || m.Number != l.number || m.Total != l.total || m.Offset != len(l.buf) {
		return nil, false
	}
	l.buf = append(l.buf, m.Data...)
	if len(l.buf) < l.total {
		return nil, true
	}
	sw.dropListLocked(s)
	return l.buf, false
}

// endList frees the place of a session.
func (sw *Switch) endList(s *Session) {
	sw.mu.Lock()
	defer sw.mu.Unlock()
	sw.dropListLocked(s)
}

func (sw *Switch) dropListLocked(s *Session) {
	is := func(o *Session) bool { return o == s }
	s.list = nil
	sw.lists = slices.DeleteFunc(sw.lists, is)
	sw.listless = slices.DeleteFunc(sw.listless, is)
	sw.turnLocked(time.Now())
}

// moot drops lists that are not newer than number own, which this node has now.
func (sw *Switch) moot(own uint64) {
	sw.mu.Lock()
	defer sw.mu.Unlock()
	sw.listless = slices.DeleteFunc(sw.listless, func(s *Session) bool { return s.offered <= own })
	sw.lists = slices.DeleteFunc(sw.lists, func(s *Session) bool {
		if s.list.total == 0 || s.list.number > own {
			return false // total is 0 for a list that was requested and has not started
		}
		s.list = nil
		return true
	})
	sw.turnLocked(time.Now())
}

// turnLocked gives places to sessions that wait for one, and runs again while some still
// wait.
func (sw *Switch) turnLocked(now time.Time) {
	for len(sw.listless) > 0 && !sw.closed {
		if len(sw.lists) >= listPlaces {
			var out *Session
			for _, s := range sw.lists {
				if now.Sub(s.list.since) >= listTurn && (out == nil || s.list.rate(now) < out.list.rate(now)) {
					out = s
				}
			}
			if out == nil {
				break
			}
			out.offered, out.list = max(out.offered, out.list.number), nil
			sw.lists = slices.DeleteFunc(sw.lists, func(o *Session) bool { return o == out })
			sw.listless = append(sw.listless, out)
		}
		s := sw.listless[0]
		sw.placeListLocked(s)
		m := Message{Type: TypeCRLNext, Number: s.offered}
		sw.wg.Go(func() { s.Send(m) })
	}
	if len(sw.listless) > 0 && !sw.closed && !sw.turning {
		sw.turning = true
		time.AfterFunc(listTurn/4, func() {
			sw.mu.Lock()
			defer sw.mu.Unlock()
			sw.turning = false
			sw.turnLocked(time.Now())
		})
	}
}
