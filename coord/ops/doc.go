// Package ops is what a coordination server does, without a listener of its own:
// every operation on a network, over a database. It makes join keys, issues
// certificates and addresses, answers who is who, and revokes.
//
//	service.go    Service: the operations, with or without a running server
//	serving.go    what the server around them asks
//	index.go      what is kept in memory: versions, classes, who sees whom
//	api.go        the node API: routes, callers, errors
//	join.go       POST /v1/join
//	protocol.go   which versions of those who ask it gets on with
//	renew.go      POST /v1/renew
//	life.go       how long certificates live, and who may join, leave and rename
//	config.go     GET /v1/config
//	directory.go  GET /v1/directory
//	lookup.go     GET /v1/lookup
//	presence.go   POST /v1/presence
//	crl.go        GET /v1/crl, and making the list, whatever is in it
//	backup.go     everything that makes the network, in one encrypted file
//	audit_read.go what was recorded of who did what
//	recall.go     a restored server takes the list that nodes hold
//	relays.go     relays that run alone: join, sync, presence, removal
//	devices.go    list, rename, replace, delete, logout
//	hostname.go   what a device's name may be
//	dns.go        records, routes, nameservers, options: checked and stored
//	dns_alias.go  former names, which lead to their device for a while
//	dns_device.go what one node's resolver is told
//	dns_preview.go  what a name will answer, and why
//	keys.go       join keys and their tokens
//	users.go      users and sign-in links
//	signin.go     signing in, with a link or a password
//	session.go    tokens, and the sessions of browsers
//	password.go   changing a password
//	refusals.go   counting what was refused, for the audit
//	connection.go the way between the relay and a device, measured
//	overview.go   relays, names, revocations: for who may see them
//	policy.go     changing the policy
//	upkeep.go     last seen, ephemeral nodes, pruning
//	events.go     what open consoles are told
//	device_edit.go  several changes of a device in one, if it is still as it was seen
//	decode.go     reading JSON that others sent
//
// The database is the truth. Memory changes only after a commit, in commit
// order (store.Tx.After); a failed write changes nothing.
package ops
