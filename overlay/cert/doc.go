// Package cert builds, parses and verifies everything that weft trusts by
// signature: the two CAs, node and server certificates, the revocation list,
// join tokens, and weft time, by which validity is judged.
//
// It is pure: no files, no sockets, no goroutines, and no clock but the one a
// Clock is given. Nodes and the coordination server share it.
//
// There are two kinds of CA, each pinned by the hash of its key in every token. The
// server CA certifies coordination servers and relays; the network CA certifies nodes.
// They are separate roots on purpose: a server certificate proves nothing to a node as a
// peer, and a node certificate does not make a server.
//
// Three things keep a deleted node out: the revocation list, until the certificate
// expires; after that the date in the list (CRL.Since), whatever time this node believes
// it is; and weft time, which only the coordination server moves once this node has
// received its time. A removed relay is kept out because the config no longer names its
// key: a relay must hold a key that the config names (ServerRoots.VerifyRelay), at any
// date.
//
//   - id.go     NetworkID, NodeID, Pin
//   - key.go    identity keys, CSRs, the self-signed certificate used to join
//   - ca.go     making CAs, signing server and node certificates
//   - node.go   what a node certificate says
//   - roots.go  which certificate to believe, and when
//   - crl.go    the revocation list, and what it leaves out
//   - token.go  the join token
//   - clock.go  weft time
//
// Not for embedders: a node verifies certificates itself; see package overlay.
package cert
