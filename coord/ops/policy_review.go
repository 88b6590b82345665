package ops

import (
	"cmp"
	"context"
	"errors"

	"weft/coord/policy"
	"weft/coord/store"
)

// PolicyReview is the policy in force, with what it means for the present network.
type PolicyReview struct {
	PolicyText
	Policy *policy.Policy
	// Missing maps selectors of the policy that select nothing to words that say why.
	Missing map[string]string
	// Tests are the results of all tests. TestProblem is why the tests could not be run, "" if
	// they were.
	Tests       []policy.Result
	TestProblem string
	// Groups are all groups by name; nil if the actor may not read them.
	Groups map[string]store.Group
	// Tagged is the number of devices with each tag.
	Tagged map[string]int
	// Partial says that the actor may see only some devices. Then the fields above, except the
	// policy itself, are empty.
	Partial bool
}

// ReviewPolicy returns the policy in force with what it means for the present network.
func (s *Service) ReviewPolicy(ctx context.Context, a Actor) (out PolicyReview, err error) {
	if err := opPolicyRead.asks(a); err != nil {
		return out, err
	}
	err = s.store.Read(ctx, func(r *store.Reader) error {
		n, err := r.Network()
		if err != nil {
			return err
		}
		number, err := r.PolicyNumber(s.network)
		if err != nil {
			return err
		}
		out.PolicyText = policyText(number, n.Policy)
		if out.Policy, err = policy.Stored(cmp.Or(n.Policy, policy.StartingText)); err != nil {
			return err
		}
		if out.Partial = len(a.Tags) > 0; out.Partial {
			return nil
		}
		w := newWorld(s, r)
		if out.Missing, err = out.Policy.Missing(w); err != nil {
			return err
		}
		out.Tests, err = out.Policy.Results(w)
		if e, ok := errors.AsType[*policy.Error](err); ok {
			out.TestProblem, err = e.Problems[0].Text, nil
		}
		if err != nil {
			return err
		}
		_, kinds := s.index.kinds()
		out.Tagged = map[string]int{}
		for _, k := range kinds {
			for _, tag := range k.subject.Tags {
				out.Tagged[tag] += k.count
			}
		}
		if opGroupRead.asks(a) != nil {
			return nil
		}
		list, err := r.AllGroups(s.network)
		out.Groups = make(map[string]store.Group, len(list))
		for _, g := range list {
			out.Groups[g.Name] = g
		}
		return err
	})
	return out, err
}
