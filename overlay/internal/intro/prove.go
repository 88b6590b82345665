package intro

import (
	"crypto/hmac"
	"crypto/sha256"
	"fmt"
)

// That a WireGuard key is the sender's own is proven by an HMAC under the pair
// key of both nodes' WireGuard keys (Config.PairKey), which takes one of the two
// private keys. It is over the session, by the TLS exporter, so that it says
// nothing in another one, and over the sender's role, so that a proof that comes
// back to its sender is none. The caller has the callee's key when it sends hello,
// the callee the caller's when it sends accept: no round trip is added.

const labelKeys = "EXPORTER-weft-wgkey/1"

// The roles in a proof.
const (
	roleCaller = 1
	roleCallee = 2
)

// agree works out what both sides have to show for their WireGuard keys, once
// both hellos are known. A peer that names this node's own key, or one of which
// nobody holds the private key alone, is refused.
func (s *Session) agree() error {
	if s.sw.cfg.PairKey == nil {
		return nil
	}
	if s.Remote.Key == s.Own.Key {
		return fmt.Errorf("%w: it is this node's", ErrKey)
	}
	key, err := s.sw.cfg.PairKey(s.Own.Key, s.Remote.Key)
	if err != nil {
		return fmt.Errorf("%w: prove WireGuard key: %w", ErrBroken, err)
	}
	caller, callee := s.Own.Key, s.Remote.Key
	if !s.Initiator {
		caller, callee = callee, caller
	}
	proof := func(role byte) []byte {
		m := hmac.New(sha256.New, key[:])
		m.Write([]byte{role})
		m.Write(s.keyContext[:])
		m.Write(caller[:])
		m.Write(callee[:])
		return m.Sum(nil)
	}
	s.proof, s.wantProof = proof(roleCaller), proof(roleCallee)
	if !s.Initiator {
		s.proof, s.wantProof = s.wantProof, s.proof
	}
	return nil
}

// checkProof takes what the peer shows for its WireGuard key. None is none, a
// wrong one is an error.
func (s *Session) checkProof(proof []byte) error {
	if len(proof) == 0 || s.wantProof == nil {
		return nil
	}
	if !hmac.Equal(proof, s.wantProof) {
		return fmt.Errorf("%w: its proof is wrong", ErrKey)
	}
	s.sw.mu.Lock()
	s.proven = true
	s.sw.mu.Unlock()
	return nil
}

// Proven reports whether the peer has proven that it holds the private key of
// Remote.Key. Of a callee it is known once Dial has returned, of a caller from the
// start.
func (s *Session) Proven() bool {
	s.sw.mu.Lock()
	defer s.sw.mu.Unlock()
	return s.proven
}
