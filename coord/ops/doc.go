// Package ops is what a coordination server does, without a listener of its own:
// every operation on a network, over a database. It makes join keys, issues
// certificates and addresses, answers who is who, and revokes.
//
//	actor.go      who asks: role, tags, and by which way
//	matrix.go     who may do which operation: one row each
//	do.go         Do: a command, authorized, done and recorded in one transaction
//	follow.go     what memory, relays and open consoles do after a change
//	open.go       opening a network, with or without a running server; making one
//	service.go    Service: what there is of an open one
//	serving.go    what the server around it asks
//	index.go      what is kept in memory of nodes; index_classes.go who sees whom,
//	              index_versions.go what each should hold, index_names.go what names lead to
//
// Nodes and relays:
//
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
//	audit_keep.go for how long it is kept, and which devices report introductions
//	introductions.go what they report: claims, beside the audit
//	recall.go     a restored server takes the list that nodes hold
//	relays.go     relays that run alone; a file each for relay_join.go, relay_sync.go (what
//	              is new for them), relay_report.go (who is connected), relay_session.go
//	              (what is remembered of one), relay_remove.go
//
// Devices and their names:
//
//	device.go     listing and showing devices
//	devices.go    finding one as a person names it; errors
//	device_rename.go, device_replace.go, device_delete.go  a command each; logout too
//	device_edit.go  several changes of a device in one, if it is still as it was seen
//	hostname.go   what a device's name may be
//	dns.go        records, routes, nameservers, options: what the owner decided
//	dns_edit.go   changing it; dns_record.go a record, dns_options.go an option,
//	              dns_check.go what is refused since it cannot work
//	dns_alias.go  former names, which lead to their device for a while
//	dns_device.go what one node's resolver is told, and its switches
//	dns_preview.go  what a name will answer, and why
//
// Keys, users, and the rest:
//
//	keys.go       join keys and their tokens
//	users.go      users, their roles, and sign-in links
//	tokens.go, token_use.go  what services use the API with, and that they did
//	once.go       requests that are repeated
//	signin.go     signing in, with a link or a password
//	session.go    tokens, and the sessions of browsers
//	password.go   changing a password
//	refusals.go   counting what was refused, for the audit
//	connection.go the way between the relay and a device, measured
//	overview.go   relays, names, revocations: for who may see them
//	policy.go     the policy in force, and putting another one into force
//	policy_check.go    what would come of a policy: who gains and loses what
//	policy_history.go  what was in force before, and going back
//	policy_can.go      may one reach another, and by which rule
//	policy_world.go    the network as the tests of a policy see it
//	webhooks.go   webhooks: what an actor sees of them
//	webhook_edit.go    making, changing and deleting them; webhook_secret.go their secrets,
//	                   webhook_try.go a test event
//	webhook_run.go     sending them; webhook_due.go which of them have something to send,
//	                   webhook_events.go what they send, from the audit and from presence
//	webhook_presence.go  which devices went online and offline
//	upkeep.go     last seen, ephemeral nodes, pruning
//	events.go     what open consoles are told
//	decode.go     reading JSON that others sent
//
// The database is the truth. Memory changes only after a commit, in commit order, and
// only by following the table of changes; a failed write changes nothing. A new operation
// is a command in a file of its own, and a row of the matrix.
package ops
