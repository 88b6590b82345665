// Package tunnels makes a node's tunnels and ends them: with whom it has one, under
// which keys, over which relay connection, and until when.
//
// It is handed what it needs (Config): the data plane and its sockets, which outlive
// it, the relay connections, what the node holds of its network, and functions for what
// only the node knows. It sees the data plane as dataplane.Plane and dataplane.Keys. Who
// wants a tunnel asks for it (Miss, Ensure); what becomes of tunnels it tells nobody, but
// for Views, which status reads. Better ways than the relay are package paths' business,
// introductions themselves package intro's.
//
// One goroutine, Run's, owns the table and all that hangs on it, paths too. Everybody else
// hands it functions, through a queue of 256. What must not be lost waits for room there
// (do); what a relay or a socket says is a hint, and dropped when there is none. The
// owner waits for nobody: what takes time (introductions, pings, messages in a session)
// runs on goroutines of its own, which Run waits for before it returns, and comes back as
// a function. Views are a copy that is exchanged as a whole.
//
// There is one lock, early.mu, over the messages that came too early. It is held for
// moments, and nothing is called meanwhile but intro.Switch.InProgress.
//
// Exported methods may be called from any goroutine but the owner's. Those that take a
// context wait, until it ends at the latest, and TripTo waits for the owner; all others
// hand over and return. What sockets, relay connections and the forwarder call (Stranger,
// Early, Session, Gone, Stirred, SetBack, Miss, and ways.go) drops a hint rather than wait
// for room.
//
//	table.go     the table, its owner, and how others hand it functions
//	peer.go      what the table holds of one peer
//	call.go      this node calls another: asked for, under way, and what came of it
//	reach.go     the same, at the relay where the peer is
//	accept.go    another node calls
//	install.go   the tunnel is made or gets new keys
//	early.go     messages that came ahead of that
//	route.go     which relay connection carries what goes to a peer
//	ways.go      what package paths is told, and what others have to say to it
//	lifetime.go  when a tunnel is looked at, and what it needs then
//	judge.go     that decision
//	ask.go       whether a peer is there, asked over the session
//	hearsay.go   what others say: the peer's bye, resets, the relay's "gone"
//	silent.go    when a relay's word that a peer is silent counts
//	rekey.go     what a clock that is set back makes necessary
//	changes.go   what a change of network, relay, rules or revocation list means for all
//	end.go       the end of a tunnel
//	view.go      what others may read
//	testing.go   what tests of whole nodes do to tunnels
package tunnels
