package coord

import (
	"context"
	"errors"
	"fmt"

	"weft/coord/policy"
	"weft/coord/store"
)

// SetPolicy puts a policy (JSON, see package policy; "" for the starting one)
// into force. One that does not parse changes nothing.
func (s *Service) SetPolicy(ctx context.Context, text string) error {
	p, err := policy.Parse(text)
	if err != nil {
		return errors.Join(ErrInvalid, err)
	}
	return s.store.Write(ctx, func(tx *store.Tx) error {
		n, err := tx.Network()
		if err != nil {
			return err
		}
		n.Policy = text
		// Who sees whom may be all different: no deltas across this change.
		n.FullAfter = n.N + 1
		c, err := tx.SetNetwork(n)
		if err != nil {
			return err
		}
		if c != n.FullAfter {
			return fmt.Errorf("set policy: change %d, want %d", c, n.FullAfter)
		}
		tx.After(func() {
			s.index.setPolicy(p, text, c)
			s.changed()
			s.log.Info("policy changed", "rules", len(p.Rules))
		})
		return nil
	})
}
