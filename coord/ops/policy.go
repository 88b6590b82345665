package ops

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"

	"weft/coord/policy"
	"weft/coord/store"
)

// SetPolicy puts a policy (see package policy; "" for the starting one) into force.
// One that does not parse changes nothing.
type SetPolicy struct {
	Text string
	// Match are the revisions that it may replace (PolicyText.Revision); nil for any.
	Match []string
}

func (SetPolicy) operation() *Operation { return opPolicySet }

func (c SetPolicy) run(tx *Tx) (none PolicyText, err error) {
	if err := tx.may(target{}); err != nil {
		return none, err
	}
	n, err := tx.Network()
	if err != nil {
		return none, err
	}
	old := n.Policy
	if err := c.check(policyRevision(old)); err != nil {
		return none, err
	}
	n.Policy = c.Text
	// Who sees whom may be all different: no deltas across this change.
	n.FullAfter = n.N + 1
	at, err := tx.SetNetwork(n)
	if err != nil {
		return none, err
	}
	if at != n.FullAfter {
		return none, fmt.Errorf("set policy: change %d, want %d", at, n.FullAfter)
	}
	tx.changed(at, store.PolicyChanged, "")
	tx.did(target{kind: "policy"}, policyText{Text: old}, policyText{Text: c.Text})
	return PolicyText{Text: c.Text, Revision: policyRevision(c.Text)}, nil
}

// policyText is a policy in the audit.
type policyText struct {
	Text string `json:"text"`
}

// PolicyText is the policy as it was written. Text is "" while it is the starting one.
type PolicyText struct {
	Text     string `json:"text"`
	Revision string `json:"revision"` // what SetPolicy.Match takes
}

func policyRevision(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:12])
}

// Policy returns the policy.
func (s *Service) Policy(a Actor) (PolicyText, error) {
	if err := opPolicyRead.asks(a); err != nil {
		return PolicyText{}, err
	}
	text := s.index.info().Policy
	return PolicyText{Text: text, Revision: policyRevision(text)}, nil
}

// CheckPolicy says what is wrong with a policy that is to be put into force, and
// changes nothing.
func (s *Service) CheckPolicy(a Actor, c SetPolicy) error {
	now, err := s.Policy(a)
	if err != nil {
		return err
	}
	return c.check(now.Revision)
}

// check says what is wrong with a policy that is to take the place of another one.
func (c SetPolicy) check(now string) error {
	if _, err := policy.Parse(c.Text); err != nil {
		return Invalid("%v", err)
	}
	if err := matches(c.Match, now); err != nil {
		return fmt.Errorf("policy: %w", err)
	}
	return nil
}
