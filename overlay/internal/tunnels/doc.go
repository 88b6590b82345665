// Package tunnels makes a node's tunnels and ends them: whom it has one with, under
// which keys, over which relay or better way, and until when.
//
// It is handed what it needs (Config): the data plane and its sockets, which outlive
// it, the relay connections, what the node holds of its network, and functions for what
// only the node knows. It sees the data plane as dataplane.Plane and dataplane.Keys and
// knows no WireGuard; it knows neither the server's API nor who asks for a tunnel.
//
// One goroutine, Run's, owns the table and all that hangs on it. Everybody else hands it
// functions, through a queue of 256. What must not be lost waits for room there (do);
// what a relay or a socket says is a hint, and dropped when there is none. The owner
// waits for nobody: what takes time (introductions, pings, messages in a session) runs on
// goroutines of its own, which Run waits for before it returns, and comes back as a
// function. Views, which status reads, are a copy that is exchanged as a whole.
//
// Locks: held.mu guards the messages that came too early, that of a prober a peer's
// probes. Both are taken for moments, by sockets' goroutines too, and nothing else is
// called meanwhile but intro.Switch.InProgress. Exported methods may be called from any
// goroutine; those that take a context wait, and are not for the owner's functions. What
// sockets and relay connections call (Stranger, Early, Probed, STUN, LaneSaid, Trouble,
// Session, Gone and those of lanes) does not wait.
//
//	table.go        the table, its owner, and what happens to all tunnels at once
//	introduce.go    how a tunnel comes about, called or calling
//	reach.go        introductions at the relay where a peer is
//	silent.go       when a relay's word that a peer is silent counts
//	lifetime.go     how long a tunnel lives, and when its peer is asked
//	rekey.go        what a clock that is set back makes necessary
//	view.go         what others may read
//	paths.go        how traffic gets from the relay to a better way
//	paths_net.go    sockets, this node's candidates, what it tells its peers
//	paths_probe.go  datagrams in: probes, STUN, lanes
//	paths_lane.go   lanes
//	testing.go      what tests of whole nodes do to tunnels
package tunnels
