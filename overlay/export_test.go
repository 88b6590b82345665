package overlay

import "time"

// SetIdle shortens the life of tunnels without data, before Start.
func (n *Node) SetIdle(d time.Duration) { n.idleAfter = d }
