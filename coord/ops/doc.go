// Package ops is the coordination server without its listeners: every operation on a
// network, over a database. It makes join keys, issues certificates and addresses,
// answers nodes' questions about each other, and revokes.
//
//	actor.go      Actor: who asks for an operation, with which role and tags
//	matrix.go     which role may do which operation: one row for each operation
//	do.go         Do: authorizes, runs and records a command in one transaction
//	follow.go     how memory, relays and open consoles follow a change
//	open.go       opening a network, with or without a running server; making one
//	service.go    Service: an open network
//	serving.go    what the listeners need: relay clients, certificates, counts
//	index.go      nodes in memory; index_classes.go: who sees whom,
//	              index_versions.go: the versions that a node should hold,
//	              index_names.go: former names and wildcards
//
// Nodes and relays:
//
//	api.go        the node API: routes, callers, errors
//	join.go       POST /v1/join
//	ask.go        POST /v1/ask: joining without a token; ask_table.go: who waits,
//	              ask_decide.go: a person lets a device in, or not
//	protocol.go   which protocol versions of nodes and relays the server accepts
//	renew.go      POST /v1/renew
//	life.go       how long certificates are valid, and who may join, leave and rename
//	config.go     GET /v1/config
//	directory.go  GET /v1/directory
//	lookup.go     GET /v1/lookup
//	presence.go   POST /v1/presence
//	crl.go        GET /v1/crl, and signing the revocation list
//	backup.go     making and restoring an encrypted backup of the server
//	audit_read.go reading and checking the audit
//	audit_keep.go how long records stay, and which devices report introductions
//	introductions.go  the introductions that devices report: claims, beside the audit
//	recall.go     how a restored server takes the newer revocation list of its nodes
//	relays.go     standalone relays: relay_join.go, relay_sync.go (news for a relay),
//	              relay_report.go (who is connected), relay_session.go (what memory
//	              holds about one), relay_remove.go
//
// Devices and their names:
//
//	device.go     showing devices
//	device_query.go   listing, sorting and searching them: device_filter.go the grammar of
//	              filters, device_facets.go what there is to filter by, device_rows.go
//	              the rows in memory, version_order.go which version is newer
//	device_bulk.go    the same change of many devices
//	devices.go    finding a device by the word that a person uses; errors
//	device_rename.go, device_replace.go, device_delete.go  a command each; logout too
//	device_assign.go  other tags, another owner: and what becomes of the certificates
//	device_sign_in.go  people sign their devices in again; index_overdue.go: which were not
//	device_edit.go  several changes of a device in one command, with If-Match
//	hostname.go   which names a device can have
//	dns.go        the network's DNS settings: records, routes, nameservers, options
//	dns_edit.go   changing them: dns_record.go a record, dns_options.go an option,
//	              dns_check.go refuses settings that cannot work
//	dns_alias.go  former names, which lead to their device for a while
//	dns_device.go the DNS settings of one node
//	dns_preview.go  what a name will answer, and why
//
// Keys, users, and the rest:
//
//	keys.go       join keys and their tokens
//	users.go      users, their roles, what they are called, and sign-in links
//	invite.go     inviting people; address.go: by which address others reach the server
//	user_delete.go   deleting users, and what becomes of their devices
//	user_suspend.go  suspending users, and resuming them
//	groups.go     groups of people, by who says so
//	tokens.go     tokens of the API; token_use.go: when and from where they are used
//	once.go       repeated requests with an idempotency key
//	signin.go     signing in, with a link or a password
//	factor.go     codes beside the password, and recovery codes; totp.go makes them
//	oidc.go       people who sign in elsewhere: oidc_provider.go where, oidc_identity.go
//	              who waits for approval
//	passkey.go    passkeys: whose, for which domain, and whether one was copied
//	signin_settings.go  what the network demands of who signs in
//	fresh.go      what wants a recent sign-in
//	session.go    session tokens of browsers
//	password.go   changing a password
//	refusals.go   counting refusals for the audit
//	connection.go measuring the round trip between the relay and a device
//	overview.go   relays, DNS settings and revocations, for actors that may see them
//	fips.go       FIPS mode
//	policy.go     the policy in force, and replacing it
//	policy_check.go    who would gain and lose access by a policy
//	policy_review.go   what the policy in force means for the network of now
//	policy_history.go  earlier policies, and putting one into force again
//	policy_can.go      may one reach another, and by which rule
//	policy_reach.go    all that somebody reaches, and all who reach a device
//	tagowners.go       who may give a tag, or take it away
//	policy_world.go    the network as package policy sees it
//	webhooks.go   listing and showing webhooks
//	webhook_edit.go    making, changing and deleting webhooks; webhook_secret.go: their
//	                   secrets, webhook_try.go: sending a test event
//	webhook_run.go     sending events; webhook_due.go: which webhook sends next,
//	                   webhook_events.go: which events, from the audit and from presence
//	webhook_presence.go  which devices went online and offline
//	upkeep.go     last seen, ephemeral nodes, pruning
//	events.go     events for open consoles
//	decode.go     decoding JSON from clients
//
// The database is the source of truth. Memory changes only after a commit, in commit
// order, and only by following the table of changes; a failed write changes nothing. A
// new operation is a command in a file of its own, and a row of the matrix.
package ops
