package webapi

import (
	"context"

	"weft/coord/ops"
)

// NewPolicy is the text of a policy; "" is the starting one.
type NewPolicy struct {
	Text string `json:"text" required:"true" doc:"JSON with the rules, as it is to be kept; empty for the starting policy"`
}

// Checked says that there is nothing wrong.
type Checked struct {
	Good bool `json:"good"`
}

func setPolicy(in *SentFor, body NewPolicy) (ops.SetPolicy, error) {
	match, err := in.revisions()
	return ops.SetPolicy{Text: body.Text, Match: match}, err
}

func (a *api) policy() {
	s := a.ops
	add(a, operation{"GET", "/policy", "getPolicy", "Show the policy as it was written", "policy.read", 0},
		func(_ context.Context, who ops.Actor, _ *struct{}) (ops.PolicyText, error) { return s.Policy(who) })
	addSent(a, operation{"PUT", "/policy", "setPolicy", "Put a policy into force", "policy.set", 0},
		func(ctx context.Context, who ops.Actor, in *SentFor, body NewPolicy) (ops.PolicyText, error) {
			c, err := setPolicy(in, body)
			if err != nil {
				return ops.PolicyText{}, err
			}
			return ops.Do(ctx, s, who, c)
		})
	addSent(a, operation{"POST", "/policy/check", "checkPolicy", "Say whether a policy could be put into force just now, and change nothing", "policy.read", 0},
		func(_ context.Context, who ops.Actor, in *SentFor, body NewPolicy) (Checked, error) {
			c, err := setPolicy(in, body)
			if err != nil {
				return Checked{}, err
			}
			return Checked{true}, s.CheckPolicy(who, c)
		})
}
