package ops

import (
	"fmt"
	"slices"
	"strings"

	"weft/coord/policy"
)

// mayTag returns nil if the actor may give these tags to devices and remove them, which changes
// what the devices may do. Owners and admins may, and so may those whom the policy's tagOwners
// list for a tag. Operators may give tags that tagOwners do not list, as before there were
// tagOwners; operators who are limited to tags may give exactly these tags.
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
			who += " and those whom the policy lists"
		}
		return fmt.Errorf("%s: %s may give or remove the tag %s; owners and admins can add you to the policy, under tagOwners: %w", tx.op.Name, who, tag, ErrForbidden)
	}
	return nil
}
