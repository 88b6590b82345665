// Package paths moves the traffic of tunnels from the relay connection to a better path,
// and back when that path is lost. Each tunnel has an agent (package path) that decides.
// This package reports events to the agents and does what they want: it sends probes,
// sets paths in the bind, sends candidates to the peer, requests lanes and binds them.
//
// It belongs to the owner of the tunnels (package tunnels) and has no goroutine of its
// own, except the gatherer's. Only the owner may call the methods of Paths, unless they
// say that any goroutine may: those pass functions to the owner (Config.Do, or Hint for
// what may be dropped) and do not wait for it. Datagrams from sockets (Probed, STUN,
// LaneControl) are authenticated on the goroutine that reads the socket. The functions of
// Config are called by the owner, except Do and Hint, which any goroutine calls. A
// prober's mutex is held for one datagram, and nothing is called meanwhile; the packet
// path takes no lock.
//
//	paths.go       agents: made with a tunnel, stepped, their output done
//	peer.go        what one tunnel has: its agent, its sockets, its names for paths
//	nets.go        this machine's networks, and gathering
//	candidates.go  the candidates that nodes send each other
//	probe.go       datagrams in: probes, STUN, errors of sending
//	lane.go        lanes
package paths
