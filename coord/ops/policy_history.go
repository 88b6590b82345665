package ops

import (
	"context"
	"fmt"

	"weft/coord/store"
)

// RevertPolicy puts a policy of the history into force again, with the same checks as for a new
// one. Number 0 is the starting policy.
type RevertPolicy struct {
	Number int
	Match  []string // as in SetPolicy
}

func (RevertPolicy) operation() *Operation { return opPolicyRevert }

func (c RevertPolicy) run(tx *Tx) (PolicyText, error) {
	if err := tx.may(target{}); err != nil {
		return PolicyText{}, err
	}
	p, err := numberedPolicy(&tx.Reader, tx.s, c.Number)
	if err != nil {
		return PolicyText{}, err
	}
	return SetPolicy{Text: p.Text, Match: c.Match}.set(tx)
}

// PolicyHistory lists the policies that were put into force, at most store.KeptPolicies of them,
// newest first. The first one is in force.
func (s *Service) PolicyHistory(ctx context.Context, a Actor) (list []store.PolicyRevision, err error) {
	list = []store.PolicyRevision{}
	if err := opPolicyRead.asks(a); err != nil {
		return list, err
	}
	err = s.store.Read(ctx, func(r *store.Reader) error {
		kept, err := r.Policies(s.network)
		list = append(list, kept...)
		return err
	})
	return list, err
}

// FormerPolicy returns a policy of the history with its text.
func (s *Service) FormerPolicy(ctx context.Context, a Actor, number int) (p PolicyText, err error) {
	if err := opPolicyRead.asks(a); err != nil {
		return p, err
	}
	err = s.store.Read(ctx, func(r *store.Reader) (err error) { p, err = numberedPolicy(r, s, number); return err })
	return p, err
}

func numberedPolicy(r *store.Reader, s *Service, number int) (PolicyText, error) {
	if number == 0 {
		return policyText(0, ""), nil
	}
	_, text, err := r.PolicyText(s.network, number)
	if isNotFound(err) {
		err = aboutError{KindPolicy, fmt.Sprintf("policy %d is not among the last %d", number, store.KeptPolicies), ErrNotFound}
	}
	return policyText(number, text), err
}
