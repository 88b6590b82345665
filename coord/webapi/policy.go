package webapi

import (
	"context"
	"fmt"
	"strconv"

	"weft/coord/ops"
	"weft/coord/store"
)

// NewPolicy is the text of a policy; "" is the starting one.
type NewPolicy struct {
	Text string `json:"text" required:"true" doc:"the rules and tests as JSON with comments, stored unchanged; empty for the starting policy"`
}

// PolicyHistory are the policies that were in force.
type PolicyHistory struct {
	Policies []store.PolicyRevision `json:"policies"` // the newest first, which is in force
}

// Revert names the policy of the history that is to be in force again.
type Revert struct {
	Number int `json:"number" required:"true" minimum:"0" doc:"number of the policy; 0 is the starting one"`
}

func policyNumber(word string) (int, error) {
	n, err := strconv.Atoi(word)
	if err != nil || n < 0 {
		return 0, ops.About(ops.KindPolicy, word, fmt.Errorf("want the number of a policy: %w", ops.ErrNotFound))
	}
	return n, nil
}

func setPolicy(in *SentFor, body NewPolicy) (ops.SetPolicy, error) {
	match, err := in.revisions()
	return ops.SetPolicy{Text: body.Text, Match: match}, err
}

func (a *api) policy() {
	s := a.ops
	add(a, operation{"GET", "/policy", "getPolicy", "Show the policy as it was written", "policy.read", 0},
		func(ctx context.Context, who ops.Actor, _ *struct{}) (ops.PolicyText, error) {
			return s.Policy(ctx, who)
		})
	addSent(a, operation{"PUT", "/policy", "setPolicy", "Put a policy into force", "policy.set", 0},
		func(ctx context.Context, who ops.Actor, in *SentFor, body NewPolicy) (ops.PolicyText, error) {
			c, err := setPolicy(in, body)
			if err != nil {
				return ops.PolicyText{}, err
			}
			return ops.Do(ctx, s, who, c)
		})
	addSent(a, operation{"POST", "/policy/check", "checkPolicy", "Check a policy and show who would gain or lose which access; changes nothing", "policy.read", 0},
		func(ctx context.Context, who ops.Actor, in *SentFor, body NewPolicy) (ops.PolicyCheck, error) {
			c, err := setPolicy(in, body)
			if err != nil {
				return ops.PolicyCheck{}, err
			}
			return s.CheckPolicy(ctx, who, c)
		})
	addAsked(a, operation{"GET", "/policy/can", "canReach", "Show whether a person or a device may reach a port of a device, and which rule decides", "policy.read", 0}, "from to",
		func(ctx context.Context, who ops.Actor, in *Asked) (ops.Access, error) {
			return s.CanReach(ctx, who, ops.AccessQuery{From: in.From, To: in.To})
		})
	addAsked(a, operation{"GET", "/policy/reach", "getReach", "List all that a person or a device reaches, or all who reach a device, with the rules that decide", "reach.read", 0}, "from to cursor limit",
		func(ctx context.Context, who ops.Actor, in *Asked) (ops.Reach, error) {
			return s.Reach(ctx, who, ops.ReachQuery{From: in.From, To: in.To, Cursor: in.Cursor, Limit: in.Limit})
		})
	add(a, operation{"GET", "/policy/history", "listPolicies", "List the policies that were in force, the newest first, without their texts", "policy.read", 0},
		func(ctx context.Context, who ops.Actor, _ *struct{}) (PolicyHistory, error) {
			list, err := s.PolicyHistory(ctx, who)
			return PolicyHistory{list}, err
		})
	add(a, operation{"GET", "/policy/history/{id}", "getFormerPolicy", "Show a policy of the history as it was written", "policy.read", 0},
		func(ctx context.Context, who ops.Actor, in *Word) (ops.PolicyText, error) {
			n, err := policyNumber(in.ID)
			if err != nil {
				return ops.PolicyText{}, err
			}
			return s.FormerPolicy(ctx, who, n)
		})
	addSent(a, operation{"POST", "/policy/revert", "revertPolicy", "Put a policy of the history into force again", "policy.revert", 0},
		func(ctx context.Context, who ops.Actor, in *SentFor, body Revert) (ops.PolicyText, error) {
			match, err := in.revisions()
			if err != nil {
				return ops.PolicyText{}, err
			}
			return do(ctx, a, who, ops.RevertPolicy{Number: body.Number, Match: match}, same)
		})
}
