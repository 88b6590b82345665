package intro

import "fmt"

// Suite is how the packets of a pair are encrypted. Each side says in its hello what it can
// use, and both come to the same choice; the callee's accept states it. All three are
// inside TLS, so no relay can change them, and a callee that states another choice than its
// hello allows is refused.
type Suite string

// The suites. SuiteAES is preferred: a node offers it only where it is fast.
const (
	SuiteWireGuard Suite = "wireguard"
	SuiteAES       Suite = "aes" // package gcm
)

// choose returns the suite of a pair; ok is false if there is none.
func choose(a, b Hello) (s Suite, ok bool) {
	switch none := [32]byte{}; {
	case a.AES && b.AES:
		return SuiteAES, true
	case a.Only || b.Only || a.Key == none || b.Key == none:
		return "", false
	}
	return SuiteWireGuard, true
}

// agreeSuite sets the session's suite, once both hellos are known, or says why there is
// none.
func (s *Session) agreeSuite() *Deny {
	suite, ok := choose(s.Own, s.Remote)
	if !ok {
		// Either side may read this.
		if s.Own.AES == s.Initiator {
			return &Deny{Reason: DenySuite, Text: "the calling device demands AES, the called one cannot use it"}
		}
		return &Deny{Reason: DenySuite, Text: "the called device demands AES, the calling one cannot use it"}
	}
	s.Suite = suite
	return nil
}

// checkSuite checks what an accept states.
func (s *Session) checkSuite(m Message) error {
	stated := m.Suite
	if stated == "" {
		stated = SuiteWireGuard
	}
	if stated != s.Suite {
		return fmt.Errorf("%w: the peer has chosen the suite %.20q instead of %q", ErrSuite, stated, s.Suite)
	}
	return nil
}

// Secret returns the secret of the pair for the session's suite.
func (s *Session) Secret() [32]byte {
	if s.Suite == SuiteAES {
		return s.aes
	}
	return s.PSK
}
