// Package tunnels makes a node's tunnels and ends them: with whom it has one, under
// which keys, over which relay connection, and until when.
//
// Config passes in what it needs: the data plane and its sockets, which outlive it, the
// relay connections, the node's network, and functions for the rest. It uses the data
// planes as dataplane.Plane and dataplane.Keys; the two nodes of a tunnel agree on one in
// each introduction (intro.Suite). Others request tunnels (Miss, Ensure). It reports their
// state only in Views, which status reads. Package paths finds better paths than the relay
// connection; package intro makes introductions.
//
// One goroutine, Run's, owns the table and everything in it, paths too. Others pass
// functions to it through a queue of 256. What must not be lost waits for room there
// (do). What a relay or a socket reports is a hint, and dropped when there is no room.
// The owner never blocks: slow work (introductions, pings, messages in a session) runs on
// goroutines of its own, whose results come back as functions; Run waits for them before
// it returns. Views are a copy that is replaced as a whole.
//
// There is one lock, early.mu, for messages that arrive before their introduction is
// complete. It is held for moments, and only intro.Switch.InProgress is called meanwhile.
//
// Exported methods may be called from any goroutine but the owner's. Those with a context
// wait until it ends at the latest, and TripTo and Watch wait for the owner; all others
// return at once. The callbacks of sockets, relay connections and the forwarder (UnknownSender,
// Early, Session, Gone, Resumed, SetBack, Miss, and those in paths.go) drop a hint rather
// than wait for room.
//
//	table.go     the table, its owner, and how others hand it functions
//	peer.go      what the table holds of one peer
//	call.go      this node introduces itself: request, attempt and outcome
//	reach.go     the same, at the relay where the peer is
//	accept.go    another node introduces itself
//	install.go   the tunnel is made or gets new keys
//	early.go     messages that arrive before that
//	conn.go      which relay connection carries packets to a peer
//	paths.go     between package paths and others
//	lifetime.go  when a tunnel is checked, and what it needs then
//	judge.go     that decision
//	ask.go       asking a peer for a sign of life, over the session
//	hearsay.go   what others report: the peer's bye, resets, the relay's "gone"
//	silent.go    when a relay's report that a peer is silent counts
//	rekey.go     new keys after the clock was set, or the machine has slept
//	changes.go   changes that affect all tunnels
//	end.go       the end of a tunnel
//	view.go      copies for others to read
//	testing.go   methods for tests of whole nodes
package tunnels
