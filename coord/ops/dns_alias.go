package ops

// A device that is renamed keeps its old name for some time as an alias, so that bookmarks and
// scripts keep working. During that time no other device can have the name. If the device is
// deleted the alias ends too. Other nodes receive the alias together with the device, in the
// same directory or lookup, so at every moment at least one of the two names is answered.

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"weft/coord/store"
	"weft/dns"
	"weft/overlay/api"
	"weft/overlay/cert"
)

// aliasBatch bounds how many aliases one write deletes.
const aliasBatch = 500

// claimName returns an error if a node may not have a name: because it is reserved, because it
// is the alias of another node, or because a record answers for it. If the name is an alias of
// the node itself, or has expired, it deletes the alias. That no other node has the name is
// ensured by the database.
func (s *Service) claimName(tx *Tx, id cert.NodeID, name string) error {
	if dns.Reserved(name) {
		return Invalid("name %q: programs look up this name on their own and would trust the device that has it; choose another, or add a record for it (weft-server dns records add)", name)
	}
	a, err := tx.Alias(s.network, name)
	switch {
	case err == nil && a.NodeID == id, err == nil && !s.now().Before(a.Until):
		if err := tx.RemoveAlias(s.network, name, false); err != nil {
			return err
		}
		if a.NodeID != id {
			return s.aliasesChanged(tx, a.NodeID)
		}
	case err == nil:
		node, err := tx.Node(s.network, a.NodeID)
		if err != nil {
			return err
		}
		if opDeviceRead.authorize(tx.actor, deviceTarget(node)) != nil { // do not reveal whose alias it is
			return fmt.Errorf("name %q: %w", name, ErrTaken)
		}
		return inTheWay("%s was the name of %s and leads to it until %s; end that former name first (weft-server dns aliases remove %s)",
			name, node.Name, a.Until.Format(time.DateOnly), name)
	case !errors.Is(err, store.ErrNotFound):
		return err
	}
	record, err := tx.HasRecord(s.network, name)
	if err == nil && record {
		err = inTheWay("a record answers for %s; remove it first (weft-server dns records remove %s)", name, name)
	}
	return err
}

// undoneWithin is how soon after a rename giving the old name back counts as undoing it. The
// console offers to undo a rename for a shorter time.
const undoneWithin = 5 * time.Minute

// undoes reports whether giving a node this name undoes a rename of a moment ago. Then the name
// in between was a mistake that nobody relies on, so it does not become an alias, which could
// displace an older one.
func (s *Service) undoes(tx *Tx, id cert.NodeID, name string) (bool, error) {
	a, err := tx.Alias(s.network, name)
	if isNotFound(err) || err == nil && a.NodeID != id {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	n, err := tx.DNS(s.network)
	since := tx.now.Sub(a.Until.AddDate(0, 0, -n.AliasDays))
	return err == nil && since >= 0 && since < undoneWithin, err
}

// keepName makes old an alias of the node, or frees it if the network keeps no aliases.
func (s *Service) keepName(tx *Tx, id cert.NodeID, old string) error {
	n, err := tx.DNS(s.network)
	if err != nil {
		return err
	}
	list, err := tx.Aliases(s.network, &id)
	if err != nil {
		return err
	}
	for len(list) >= api.MaxAliases {
		if err := tx.RemoveAlias(s.network, list[0].Name, true); err != nil {
			return err
		}
		list = list[1:]
	}
	if n.AliasDays > 0 && !dns.Reserved(old) {
		a := store.Alias{NodeID: id, Alias: api.Alias{Name: old, Until: s.now().UTC().Truncate(time.Second).AddDate(0, 0, n.AliasDays)}}
		if err := tx.AddAlias(s.network, a); err != nil {
			return err
		}
	} else if err := tx.FreeName(s.network, old); err != nil {
		return err
	}
	return nil
}

func wireAliases(list []store.Alias) []api.Alias {
	var out []api.Alias
	for _, a := range list {
		out = append(out, a.Alias)
	}
	return out
}

// aliasesChanged raises the version of a node, so that all nodes that see it fetch its present
// aliases.
func (s *Service) aliasesChanged(tx *Tx, id cert.NodeID) error {
	node, err := tx.Node(s.network, id)
	if err != nil {
		return err
	}
	if node.N, err = tx.Bump(s.network); err != nil {
		return err
	}
	node.ConfigN = node.N // its config contains its aliases too
	if err := tx.SetNodeN(s.network, node); err != nil {
		return err
	}
	tx.changed(node.N, store.DeviceRenamed, id.String())
	return nil
}

// removeAliasTx deletes an alias that has not expired.
func (s *Service) removeAliasTx(tx *Tx, name string) error {
	label, ok := s.label(name)
	a, err := tx.Alias(s.network, label)
	if !ok || err != nil {
		return About(KindAlias, name, cmpErr(err, ErrNotFound))
	}
	if err := tx.RemoveAlias(s.network, label, true); err != nil {
		return err
	}
	return s.aliasesChanged(tx, a.NodeID)
}

func cmpErr(err, otherwise error) error {
	if err != nil {
		return err
	}
	return otherwise
}

// endAliases deletes expired aliases.
type endAliases struct{}

func (endAliases) operation() *Operation { return opNamesFree }

func (endAliases) run(tx *Tx) (none struct{}, err error) {
	if err := tx.may(target{}); err != nil {
		return none, err
	}
	list, err := tx.ExpiredAliases(tx.s.network, tx.now, aliasBatch)
	if err != nil {
		return none, err
	}
	var nodes []cert.NodeID
	for _, a := range list {
		if err := tx.RemoveAlias(tx.s.network, a.Name, true); err != nil {
			return none, err
		}
		tx.did(target{kind: "device", id: a.NodeID.String(), name: a.Name}, a, nil)
		if !slices.Contains(nodes, a.NodeID) {
			nodes = append(nodes, a.NodeID)
		}
	}
	for _, id := range nodes {
		if err := tx.s.aliasesChanged(tx, id); err != nil {
			return none, err
		}
	}
	return none, nil
}
