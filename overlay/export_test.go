package overlay

import "time"

// SetIdle shortens the life of tunnels without data, before Start.
func (n *Node) SetIdle(d time.Duration) { n.idleAfter = d }

// SetGuestIdle shortens the life of guest connections, before Start.
func (n *Node) SetGuestIdle(d time.Duration) { n.guestIdle = d }

// Guests returns how many guest connections there are.
func (n *Node) Guests() int {
	if r := n.active.Load(); r != nil {
		return len(r.peers.guests.all())
	}
	return 0
}

// SaveHome makes a relay the home that a node starts with.
func SaveHome(dir, relayID string) error {
	s, err := openState(dir)
	if err != nil {
		return err
	}
	defer s.close()
	return s.saveHome(relayID)
}

// WorldChanged tells a node that its network may have changed.
func (n *Node) WorldChanged() {
	if r := n.active.Load(); r != nil {
		r.dialer.Forget()
		r.home.home.Wake()
		r.peers.worldChanged()
	}
}
