package ops

import (
	"slices"

	"weft/coord/store"
)

// RemoveRelay removes a relay, by name or id, from the config of all nodes. Its later
// requests are refused.
type RemoveRelay struct{ Name string }

func (RemoveRelay) operation() *Operation { return opRelayRemove }

func (c RemoveRelay) run(tx *Tx) (store.Relay, error) {
	if err := tx.may(target{}); err != nil {
		return store.Relay{}, err
	}
	relays, err := tx.Relays(tx.s.network)
	if err != nil {
		return store.Relay{}, err
	}
	i := slices.IndexFunc(relays, func(r store.Relay) bool { return r.Name == c.Name || r.ID == c.Name })
	switch {
	case i < 0 && c.Name == relayName:
		return store.Relay{}, Invalid("the relay %q is part of the server and cannot be removed", c.Name)
	case i < 0:
		return store.Relay{}, About(KindRelay, c.Name, ErrNotFound)
	}
	rl := relays[i]
	if err := tx.DeleteRelay(tx.s.network, rl.ID); err != nil {
		return rl, err
	}
	tx.did(relayTarget(rl), rl, nil)
	return rl, tx.relaysChanged()
}
