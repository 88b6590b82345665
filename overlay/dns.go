package overlay

import "weft/overlay/api"

// DNS returns what the network's owner decided about names, nil while there is
// no configuration. It is not to be changed.
func (n *Node) DNS() *api.DNS {
	s, ok := n.held.Get()
	if !ok {
		return nil
	}
	return &s.Config.DNS
}
