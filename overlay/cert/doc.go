// Package cert builds, parses and verifies everything that weft trusts by
// signature: the two CAs, node and server certificates, the revocation list,
// join tokens, and weft time, by which validity is judged.
//
// It is pure: no files, no sockets, no goroutines, and no clock but the one a
// Clock is given. Nodes and the coordination server share it.
//
// There are two kinds of CA, each pinned by the hash of its key in every
// token. The server CA certifies coordination servers and relays; the network
// CA certifies nodes. They are separate roots on purpose: nothing that a
// server leaf can prove is of any use towards a node, and the other way round.
//
// What keeps out who was deleted: the revocation list, while the certificate has
// not ended; then the list's own date (CRL.Since), whatever the time is; and weft
// time, which only the coordination server moves once it was heard. What keeps out
// a relay that was removed: the config names it no more, and a relay is who holds
// the key that the config names (ServerRoots.VerifyRelay), at any date.
//
//   - id.go     NetworkID, NodeID, Pin
//   - key.go    identity keys, CSRs, the self-signed certificate used to join
//   - ca.go     making CAs, signing server and node certificates
//   - node.go   what a node certificate says
//   - roots.go  which certificate is to be believed, and when
//   - crl.go    revocation, and what the list leaves out
//   - token.go  the join token
//   - clock.go  weft time
//
// Not for embedders: a node checks whom it talks to by itself; see package
// overlay.
package cert
