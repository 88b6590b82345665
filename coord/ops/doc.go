// Package ops is the coordination server without its listeners: all operations on a network,
// whose state is in a database. It makes join keys, issues certificates and addresses, tells
// nodes about each other, and revokes certificates.
//
//	actor.go      Actor: who asks for an operation, with which role and tags
//	matrix.go     which role may do which operation: one row for each operation
//	do.go         Do: authorizes, runs and records a command in one transaction
//	follow.go     how state in memory, relays and open consoles follow a change
//	open.go       opening a network, with or without a running server; making one
//	service.go    Service: an open network
//	serving.go    what the listeners need: relay clients, certificates, counts
//	index.go      nodes in memory; index_classes.go: which nodes see which,
//	              index_versions.go: the versions that a node should have,
//	              index_names.go: former names and wildcards
//
// Nodes and relays:
//
//	api.go        the node API: routes, callers, errors
//	join.go       POST /v1/join
//	ask.go        POST /v1/ask: joining without a token; ask_table.go: the waiting
//	              requests, ask_decide.go: a person approves or denies one
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
//	introductions.go  the introductions that devices report: claims, not audit records
//	recall.go     how a restored server gets a newer revocation list from its nodes
//	relays.go     standalone relays: relay_join.go, relay_sync.go (news for a relay),
//	              relay_report.go (which nodes are connected), relay_session.go (the
//	              state of a relay in memory), relay_remove.go, relay_load.go (traffic)
//
// Devices and their names:
//
//	device.go     showing devices
//	device_query.go   listing, sorting and searching devices: device_filter.go the grammar
//	              of filters, device_facets.go the values to filter by, device_rows.go
//	              the cached rows, version_order.go which version is newer
//	device_outlook.go  how a device can be reached, and why it may be offline
//	device_bulk.go    the same change to many devices
//	devices.go    finding a device by name, address or id; errors
//	device_rename.go, device_replace.go, device_delete.go  one command each, and logout
//	device_assign.go  other tags or another owner, and new certificates for that
//	device_sign_in.go  people sign their devices in again; index_overdue.go: overdue ones
//	device_edit.go  several changes to a device in one command, with If-Match
//	hostname.go   which names a device can have
//	dns.go        the network's DNS settings: records, routes, nameservers, options
//	dns_edit.go   changing them: dns_record.go a record, dns_options.go an option,
//	              dns_check.go refuses settings that cannot work
//	dns_alias.go  former names, which lead to their device for some time
//	dns_device.go the DNS settings of one device
//	dns_preview.go  how a name will be answered, and why
//
// Keys, users, and the rest:
//
//	keys.go       join keys and their tokens
//	users.go      users, their roles and names, and sign-in links
//	invite.go     inviting people; address.go: addresses of the server and the console
//	user_delete.go   deleting users, and what happens to their devices
//	user_suspend.go  suspending users, and resuming them
//	groups.go     groups of people, made here or given by a provider
//	tokens.go     API tokens; token_use.go: when and from where they are used
//	once.go       repeated requests with an idempotency key
//	signin.go     signing in, with a link or a password
//	factor.go     second factors: codes and recovery codes; totp.go computes the codes
//	oidc.go       signing in at an OpenID provider: oidc_provider.go the providers,
//	              oidc_identity.go people who wait for approval
//	passkey.go    passkeys: whose, for which domain, and whether one was copied
//	signin_settings.go  what the network demands of people who sign in
//	fresh.go      operations that need a recent sign-in
//	session.go    session tokens of browsers
//	password.go   changing a password
//	refusals.go   counting refusals for the audit
//	connection.go measuring the round trip between the relay and a device
//	overview.go   relays, DNS settings and revocations, for actors that may see them
//	fips.go       FIPS mode
//	policy.go     the policy in force, and replacing it
//	policy_check.go    who would gain and lose access by a new policy
//	policy_review.go   what the policy in force means for the present network
//	policy_history.go  earlier policies, and putting one into force again
//	policy_can.go      whether one may reach another, and by which rule
//	policy_reach.go    all that somebody may reach, and all who may reach a device
//	tagowners.go       who may give a tag, or remove it
//	policy_world.go    the network in the form that package policy needs
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
// The database is the source of truth. The state in memory changes only after a commit, in the
// order of commits, and only by reading the table of changes (follow.go); a failed write
// changes nothing. To add an operation, add a command in a file of its own and a row in the
// matrix.
package ops
