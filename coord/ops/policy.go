package ops

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"

	"weft/coord/audit"
	"weft/coord/policy"
	"weft/coord/store"
)

// SetPolicy puts a policy into force, unless it does not parse or its tests fail. If the policy
// is in force already, nothing changes and there is no audit record.
type SetPolicy struct {
	Text string // see package policy; "" for the starting policy
	// Match has the accepted values of PolicyText.Revision of the policy in force; nil for any.
	Match []string
}

func (SetPolicy) operation() *Operation { return opPolicySet }

func (c SetPolicy) run(tx *Tx) (PolicyText, error) {
	if err := tx.may(target{}); err != nil {
		return PolicyText{}, err
	}
	return c.set(tx)
}

// set puts the policy into force without authorization.
func (c SetPolicy) set(tx *Tx) (none PolicyText, err error) {
	n, err := tx.Network()
	if err != nil {
		return none, err
	}
	if _, err := c.check(newWorld(tx.s, &tx.Reader), policyRevision(n.Policy)); err != nil {
		return none, err
	}
	number, err := tx.PolicyNumber(tx.s.network)
	if err != nil || c.Text == n.Policy {
		return policyText(number, c.Text), err
	}
	old := policyText(number, n.Policy)
	n.Policy = c.Text
	if err := tx.rulesChanged(n); err != nil {
		return none, fmt.Errorf("set policy: %w", err)
	}
	number, err = tx.AddPolicy(tx.s.network, store.PolicyRevision{At: orNil(tx.now), UserID: tx.actor.UserID, User: tx.actor.User, Via: string(tx.actor.Via)}, c.Text)
	if err != nil {
		return none, err
	}
	now := policyText(number, c.Text)
	tx.did(target{kind: "policy"}, old.record(), now.record())
	return now, nil
}

// rulesChanged stores the network's row after a change of the policy, or of people about whom
// there are rules, and makes all nodes fetch their rules. Because any node may now see other
// nodes than before, directories from before the change cannot be brought up to date by deltas.
func (tx *Tx) rulesChanged(n store.Network) error {
	n.FullAfter = n.N + 1
	at, err := tx.SetNetwork(n)
	if err != nil {
		return err
	}
	if at != n.FullAfter {
		return fmt.Errorf("the change got number %d, want %d: this is a bug in weft-server", at, n.FullAfter)
	}
	tx.changed(at, store.PolicyChanged, "")
	return nil
}

// check parses the policy and runs its tests. now is the revision of the policy in force.
func (c SetPolicy) check(w policy.World, now string) (*policy.Policy, error) {
	if err := matches(c.Match, now); err != nil {
		return nil, fmt.Errorf("policy: %w", err)
	}
	p, err := policy.Parse(c.Text)
	if err != nil {
		return nil, wrongPolicy(err)
	}
	failed, err := p.Failures(w)
	if err == nil && len(failed) > 0 {
		err = &policy.Error{Problems: failed}
	}
	return p, wrongPolicy(err)
}

// wrongPolicy makes an ErrInvalid of a *policy.Error, which remains available to errors.As. Other
// errors it returns unchanged.
func wrongPolicy(err error) error {
	if e, ok := err.(*policy.Error); ok {
		return policyError{e}
	}
	return err
}

type policyError struct{ what *policy.Error }

func (e policyError) Error() string { return e.what.Error() }

func (e policyError) Unwrap() []error { return []error{ErrInvalid, e.what} }

// PolicyText is the text of a policy.
type PolicyText struct {
	Text     string `json:"text"`     // "" for the starting policy
	Revision string `json:"revision"` // a hash of the text, for SetPolicy.Match
	Number   int    `json:"number"`   // in the history; 0 if no policy was ever set
}

func policyText(number int, text string) PolicyText {
	return PolicyText{Text: text, Revision: policyRevision(text), Number: number}
}

func policyRevision(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:12])
}

// record returns the value for the audit. A text that is too long for a record is replaced by its
// hash, with which the text in the history can be compared.
func (p PolicyText) record() any {
	short := struct {
		Number int    `json:"number"`
		Text   string `json:"text"`
	}{p.Number, p.Text}
	if b, err := json.Marshal(short); err == nil && len(b) <= audit.MaxValue {
		return short
	}
	sum := sha256.Sum256([]byte(p.Text))
	return struct {
		Number int    `json:"number"`
		Bytes  int    `json:"bytes"`
		SHA256 string `json:"sha256"`
	}{p.Number, len(p.Text), hex.EncodeToString(sum[:])}
}

// Policy returns the policy that is in force.
func (s *Service) Policy(ctx context.Context, a Actor) (p PolicyText, err error) {
	if err := opPolicyRead.asks(a); err != nil {
		return p, err
	}
	err = s.store.Read(ctx, func(r *store.Reader) error {
		n, err := r.Network()
		if err != nil {
			return err
		}
		number, err := r.PolicyNumber(s.network)
		p = policyText(number, n.Policy)
		return err
	})
	return p, err
}
