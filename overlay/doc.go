// Package overlay is a node of a weft network: it joins with a token,
// introduces itself to other nodes, tunnels to them with AES or WireGuard, and lets a
// program dial and listen by host name, without root and without a port open
// to anybody.
//
// A Node needs a Net, the host's side of the tunnel: package netstack (user
// space) or a kernel interface. Everything else it makes itself.
//
//	net, err := netstack.New(netstack.Config{})
//	node, err := overlay.New(overlay.Config{Net: net, StateDir: "/var/lib/thing", Token: token})
//	err = node.Start(ctx)
//	defer node.Close()
//	conn, err := node.Dial(ctx, "tcp", "kitchen-pi:80")
//
// # Words
//
// Each word means one thing in code, in comments and in texts for users. Words on the
// wire, in state files and in JSON never change; the list names those that differ.
//
// Who there is:
//
//   - node: a member of a network, with a node certificate. Users read "device".
//   - peer: the other node, seen from this one. Not a relay, not a server, and
//     not the other end of a TCP connection.
//   - server: the coordination server. Relays are not called servers.
//   - relay: forwards what nodes send each other and cannot read it.
//   - network: all that trusts one network CA. Not a LAN, which is called so.
//
// Whom to trust:
//
//   - certificate: the X.509 node certificate, unless another is named.
//   - revocation list: the CRL, signed by the network CA.
//   - grant: what a rule of the policy permits a peer. Not a certificate.
//   - lease: what its giver takes back at a known time unless it is renewed, such
//     as a port mapping of a router.
//   - token: the text with which a device joins; the server keeps a key of it.
//
// Who is where:
//
//   - directory: the nodes that the server names to this one, with certificates.
//   - presence: whether a node is online and at which relay, as relays report it. It is
//     only reported, and travels apart from the directory.
//   - home relay: the relay to which a node stays connected.
//   - unknown sender: a node that sends and has neither tunnel nor introduction
//     here. Not one that the directory lacks.
//
// From the first packet to the tunnel:
//
//   - introduction: the TLS handshake of two nodes, through a relay, and what
//     they then agree on.
//   - session: the connection that an introduction has made; later messages of
//     the two use it. Never a TCP, TLS or WireGuard session.
//   - pending: asked for and not decided: a peer whose introduction is in progress; for
//     users, a join that somebody must approve.
//   - held: packets that wait until there is a tunnel. Files on disk are saved.
//   - tunnel: the encrypted exchange of packets with one peer, by whatever path.
//   - proven: a node is known to hold the private key of the WireGuard key that it
//     names, or to receive at an address.
//
// How packets travel:
//
//   - link: the mutually authenticated TLS connection of a node or relay to a
//     server or relay (package link). Not a network interface.
//   - relay connection: the link over which frames of a relay travel: the home
//     connection to the home relay, guest connections to others.
//   - path: how packets get to a peer: direct, relayed UDP or the relay connection. A
//     peer has one selected path at a time.
//   - direct path: UDP between an address of ours and one of the peer's.
//   - relayed UDP: UDP that a relay forwards by an id which it gave for the two
//     nodes. The wire and JSON call it "lane", and so does package lane, which is
//     their format; a lane is one such pair of ids.
//   - candidate: an address at which a node may be reached directly. Nothing is
//     known of it until a probe is answered.
//   - endpoint: the peer as WireGuard sees it: where its messages are sent,
//     whatever the path. In JSON and in --endpoint it is the address of a direct
//     path.
//   - probe: an authenticated ping or pong that tests a path. A ping that asks
//     a relay connection or a session for a sign of life is just a ping.
//   - interface: a network interface of the machine.
//   - route: an entry of the kernel's routing table, or the server to which DNS
//     questions below a domain go. Never a path to a peer.
//
// # Where to read on
//
// The files of this package:
//
//   - node.go       Node: New, Start, Up, Down, Logout, Close
//   - net.go        Net: what a node needs of the host's network
//   - plane.go      the data planes and their sockets, and where their packets go
//   - plane_aes.go  whether the node uses AES (plane_noaes.go: never)
//   - running.go    what exists between Up and Down
//   - join.go       token in, certificate out
//   - ask.go        the same by approval: without a token
//   - sign_in.go    a device that has joined is signed in again, by approval too
//   - sinks.go      what follows a change of configuration, certificate or revocation
//     list
//   - keep.go       what is saved on disk, and read from there
//   - clock.go      the time, from the server and relays
//   - dialer.go     links to servers and relays
//   - relays.go     what relay connections receive, and where it goes
//   - dial.go       Dial and Listen
//   - through.go    makes sure of a tunnel and a live peer while something is sent
//   - ping.go       Ping and Wait
//   - lookup.go     Resolve, Look, Names, DNS: what users ask of package lookup
//   - status.go     the facts for weft status
//   - removed.go    when this device was deleted
//   - wake*.go      the machine slept, or its network changed
//   - netcheck.go   gathering for weft netcheck
//
// Below, in internal and for this package alone: tunnels (with which peers, how they are
// made, and until when), paths (better ones than the relay connection), network
// (configuration, certificate and revocation list), follow (keeps these in step with the
// server), homes (relay connections, and at which relay a peer is), state (the state
// directory), directory (known nodes, in memory), lookup (finds nodes, asks the server),
// intro (introductions), path (which path is best), probe (its pings), gather
// (candidates), dataplane (packets between the host and peers), wg (WireGuard), gcm (AES), bind (its
// messages over sockets and relays), filter (what a peer may send), filters (those of all
// peers, which outlive their tunnels), claims (counts introductions, where the owner of the
// network wants to know). Beside them: portmap, rtt (round trips), tun
// (kernel interface), status (what a node reports to users), and what servers and relays
// use too: api, api/client, relay, link, cert.
//
// Lock order: Node.turn, the lock of network.Sinks, the one that state.Writer.Pause
// takes, Node.mu, the lock of network.Holder, and last that of the directory, which calls
// nothing. The tunnels are owned by one goroutine (package tunnels) and have no lock; it
// must not call anything that waits for it while holding one of these.
package overlay
