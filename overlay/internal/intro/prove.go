package intro

import (
	"crypto/hmac"
	"crypto/sha256"
	"fmt"
)

// A node proves that a WireGuard key is its own with an HMAC under the pair key of both
// nodes' WireGuard keys (Config.PairKey), which takes one of the two private keys to
// compute. The HMAC covers a value of the TLS exporter, so that it is not valid in
// another session, and the sender's role, so that a reflected proof is not valid either.
// The caller has the callee's key when it sends hello, the callee the caller's when it
// sends accept, so no round trip is added.

const labelKeys = "EXPORTER-weft-wgkey/1"

// The roles in a proof.
const (
	roleCaller = 1
	roleCallee = 2
)

// agree computes the proofs of both sides, once both hellos are known. It refuses a peer
// that names this node's own key, or a key whose private key anybody can know.
func (s *Session) agree() error {
	if s.sw.cfg.PairKey == nil || s.Suite != SuiteWireGuard {
		return nil
	}
	if s.Remote.Key == s.Own.Key {
		return fmt.Errorf("%w: it is this node's own", ErrKey)
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

// checkProof checks the peer's proof. An absent proof is no error, a wrong one is.
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

// Proven reports whether the peer has proven that it has the private key of Remote.Key.
// For a callee this is known once Dial has returned, for a caller from the start.
func (s *Session) Proven() bool {
	s.sw.mu.Lock()
	defer s.sw.mu.Unlock()
	return s.proven
}
