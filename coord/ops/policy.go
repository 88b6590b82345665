package ops

import (
	"errors"
	"fmt"

	"weft/coord/policy"
	"weft/coord/store"
)

// SetPolicy puts a policy (see package policy; "" for the starting one) into force.
// One that does not parse changes nothing.
type SetPolicy struct{ Text string }

func (SetPolicy) operation() *Operation { return opPolicySet }

func (c SetPolicy) run(tx *Tx) (none struct{}, err error) {
	if err := tx.may(target{}); err != nil {
		return none, err
	}
	if _, err := policy.Parse(c.Text); err != nil {
		return none, errors.Join(ErrInvalid, err)
	}
	n, err := tx.Network()
	if err != nil {
		return none, err
	}
	old := n.Policy
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
	tx.did(target{kind: "policy"}, policyText{old}, policyText{c.Text})
	return none, nil
}

// policyText is a policy in the audit.
type policyText struct {
	Text string `json:"text"`
}
