// Package paths gets the traffic of tunnels from the relay to a better way, and back
// when that is lost. Each tunnel has an agent (package path) that decides. This package
// tells the agents what happens and does what they want: probes out, ways into the bind,
// candidates to the peer, lanes asked for and bound.
//
// It belongs to whoever owns the tunnels (package tunnels) and has no goroutine of its
// own, but for the gatherer's. Paths is the owner's, and so are its methods, but for those
// that say that any goroutine may call them: they hand what they have to the owner
// (Config.Do, or Hint for what may be dropped) and do not wait for it. What sockets bring
// (Probed, STUN, LaneSaid, Trouble) is authenticated on the goroutine that reads the
// socket. Functions of Config are called by the owner, but for Do and Hint, which any
// goroutine calls. A prober's mutex is held for one datagram, and nothing is called
// meanwhile; the packet path takes no lock.
//
//	paths.go       agents: made with a tunnel, stepped, obeyed
//	peer.go        what one tunnel has: its agent, its sockets, its names for ways
//	nets.go        this machine's networks, its relays' STUN, what it looks like from outside
//	candidates.go  what this node tells its peers of that, and they it
//	probe.go       datagrams in: probes, STUN, trouble with a way
//	lane.go        lanes
package paths
