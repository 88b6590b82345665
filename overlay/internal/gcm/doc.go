// Package gcm is a data plane (package dataplane) that encrypts packets with AES-256-GCM,
// under keys that an introduction gives. It is faster than WireGuard where the processor
// has AES instructions (Fit), and all its cryptography is in Go's FIPS 140-3 module.
//
//	doc.go       format, keys, and why they are safe
//	keys.go      the key schedule; pure
//	datagram.go  the header; pure
//	window.go    which counters were taken; pure
//	session.go   the keys of one introduction: sealing, opening, epochs; pure
//	peer.go      one peer: its sessions, and the packet path
//	gcm.go       the Device
//	jump.go      what a sleep or a copy of the machine does to keys
//	alone.go     without another plane
//	fit.go       whether AES is fast here
//
// # Datagrams
//
// Numbers are big endian.
//
//	0      1          4        8          16
//	+------+----------+--------+----------+--------------------+---------+
//	| 5    | 00 00 00 | index  | counter  | encrypted packet   | tag 16 B|
//	+------+----------+--------+----------+--------------------+---------+
//	| 6    | 00 00 00 | index  | counter  | nonce 12 B, encrypted packet, tag
//	+------+----------+--------+----------+--------------- - -
//
// The index names the epoch of the sender, the counter the datagram in it. Kind 5 has the
// nonce index ‖ counter, and authenticates the first four bytes besides. Kind 6 has a
// random nonce and authenticates the first 16 bytes. A node sends kind 6 if Go's FIPS mode
// is enforced, which refuses nonces of the caller, and kind 5 otherwise. It opens both. A
// packet is not padded. An empty one is a keepalive.
//
// A receiver takes each counter of an epoch once (a window of 8,192). It drops everything
// that it cannot open, and never answers.
//
// # Keys
//
// The secret of 32 bytes is one that the TLS exporter of the introduction gives for this
// purpose only. Expand is that of HKDF with SHA-256 (RFC 5869).
//
//	chain(caller, 0) = Expand(secret, "weft aes 1 caller", 32)    what the caller sends
//	chain(callee, 0) = Expand(secret, "weft aes 1 callee", 32)    what the callee sends
//	chain(n+1) ‖ key(n) ‖ index(n) = Expand(chain(n), "weft aes 1 epoch", 68)
//
// A link of the chain whose index equals the one before, or is 0 at the beginning, is
// skipped. The sender begins the next epoch two minutes after it began one, or after 2^32
// datagrams, with the next datagram. The receiver follows when a datagram of a later epoch
// opens, at most 64 epochs on, and takes those of the epoch before for another 10 s.
//
// # Changes of keys
//
// There is no handshake: each introduction makes a session, and lost state needs another
// introduction. A node takes datagrams of three sessions: the one that it sends with, the
// next one, and for 10 s the one before. The caller has the next one before its hello
// leaves, and sends with it once the callee has accepted, beginning with an empty datagram.
// The callee has it before it accepts, and sends with it once a datagram of it has arrived,
// or after a second, or at once if the caller has restarted. So no packet is lost by the
// change, and a side that has restarted is followed at once. While a node has no session
// that its peer takes, packets wait in the hold queue: also when the introduction says that
// the peer has restarted, until it has accepted.
//
// # Why this is safe
//
// Nonces are unique under a key. A key belongs to one direction of one session, so to one
// process, and its counter is an atomic integer that never goes back. Epochs have keys of
// their own. After a restart there are no keys: they are never stored, so neither a restart
// nor a copy of the state directory brings any back, and each introduction gives fresh ones.
// What is left is a copy of the memory: a virtual machine that is resumed twice from one
// snapshot. The wall clock and the monotonic clock are compared before each run of packets,
// and a jump of 250 ms between them, as by a sleep, drops the keys for sending first; keys
// for receiving stay, since opening uses no nonce twice. This does not notice a copy whose
// wall clock continues where it stopped, on a host that does not set it; if that must be
// excluded, use a mode with random nonces, which come from the kernel, whose generator
// notices copies by itself (vmgenid), or stop weft before a snapshot.
//
// In the terms of NIST SP 800-38D, kind 5 is the deterministic construction of section
// 8.2.1: the fixed field of 32 bits is the index, the invocation field of 64 bits the
// counter. Kind 6 is the random one of 8.2.2 with 96 random bits, made inside the module.
// Both stay below the 2^32 invocations per key of section 8.3, and a packet of 64 KB far
// below the limit for its length. Tags have 128 bits: a forged datagram of 64 KB is accepted
// with a probability of at most 2^-115, and nothing tells the forger why one was not.
//
// Somebody on the path, or a relay, sees sizes, times, counters and when an epoch changes.
// They can drop, delay and repeat datagrams; repeated ones are refused. They cannot open or
// make any, nor move one to another direction, epoch, session or pair, whose keys differ.
// An index is as secret as a key until it is used, so nobody else makes a receiver derive
// later epochs, except once for each epoch, at most 64; and nothing changes before a
// datagram has been authenticated. A recording cannot be opened with keys stolen later:
// the introduction's key exchange is ephemeral and hybrid (ML-KEM), and keys of ended
// epochs are forgotten, as far as Go's garbage collector forgets. Who steals a chain from
// memory opens everything of the session that comes later; the next introduction, at least
// every two hours where there is traffic (package tunnels), ends that. A peer is
// authenticated by its certificate in the introduction; the source of each of its packets
// is checked by the filter (dataplane.Entry.Write).
//
// # Goroutines
//
// There are none of its own, except with Config.Alone, and for a moment at an introduction
// or a keepalive. The goroutine that reads the Forwarder calls peer.Carry, those that read
// the sockets and relay connections call peer.Take: each seals or opens a batch in place
// and passes it on before it reads again. The packet path takes no lock and allocates
// nothing, except when an epoch or a session changes.
package gcm
