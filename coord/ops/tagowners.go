package ops

import (
	"fmt"
	"slices"
	"strings"

	"weft/coord/policy"
)

// mayTag says whether the actor may give these tags to devices, or take them away: what a
// device may do hangs on its tags. Owners and admins may, and the tagOwners of the policy.
// Operators may give tags of which the policy says nothing, as they did before there were
// tagOwners; those that are limited to tags may always give these. Nobody else gives a tag
// that has no owners.
func (tx *Tx) mayTag(tags []string) error {
	a := tx.actor
	if len(tags) == 0 || a.Via == ViaSystem || a.Role == RoleOwner || a.Role == RoleAdmin {
		return nil
	}
	n, err := tx.Network()
	if err != nil {
		return err
	}
	p, err := policy.Stored(n.Policy)
	if err != nil {
		return err
	}
	groups, err := tx.Groups(tx.s.network, a.UserID)
	if err != nil {
		return err
	}
	for _, tag := range tags {
		owns, listed := p.OwnsTag(tag, a.User, groups, string(a.Role))
		operates := a.Role == RoleOperator && (slices.Contains(a.Tags, tag) || len(a.Tags) == 0 && !listed)
		if owns || operates {
			continue
		}
		who := "only owners and admins"
		if list := p.TagOwners[tag]; len(list) > 0 && opPolicyRead.asks(a) == nil {
			who += " and " + strings.Join(list[:min(len(list), 10)], ", ")
		} else if len(list) > 0 {
			who += " and whom the policy lists"
		}
		return fmt.Errorf("%s: %s may give or take the tag %s; owners and admins can add you in the policy, under tagOwners: %w", tx.op.Name, who, tag, ErrForbidden)
	}
	return nil
}
