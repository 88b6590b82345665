// Package store is the coordination server's database: one SQLite file that holds the
// network, its users, keys, nodes, issued serials, sessions and the audit. It is the
// source of truth for all of them.
//
// Each kind of row has a file: network.go, user.go with group.go, factor.go, passkey.go,
// oidc.go and browser.go (what people sign in with), key.go, token.go, node.go with
// certificate.go, name.go and overdue.go, addr.go, dns.go, relay.go, policy.go, audit.go with
// introduction.go, webhook.go, change.go (the table of changes), done.go (results of
// requests with an idempotency key). prune.go deletes rows that are no longer needed, and
// dropped.go remembers certificates that left the revocation list.
//
// # Writing
//
// There is one writer: a goroutine that owns the only writing connection. Write passes it a
// function. All functions that wait while a transaction is committed share the next
// transaction, and so one fsync. Each runs under its own savepoint, so a function that fails
// undoes only its own changes. Write returns after the commit: the changes then survive a
// power cut (WAL, synchronous=FULL).
//
// Memory that mirrors the database is changed by functions registered with Tx.After. They run
// after the commit, in commit order, on the writer's goroutine, and before Write returns.
//
// # Reading
//
// Read runs a function on one of a few reading connections, inside a read
// transaction: it sees one consistent state, and never blocks or is blocked
// by the writer.
//
// # Audit
//
// Records are appended in the transaction of the change that they describe
// (Tx.AppendAudit), and signed once per batch: a batch whose last record has no signed head
// (Tx.SetAuditHead, in Options.Seal) fails as a whole.
//
// # Conventions
//
// Every table has network_id. Times are unix seconds (milliseconds in the audit), NULL for
// "never"; the zero time is never stored (CHECK constraints refuse it). The SQL is written
// for SQLite and PostgreSQL alike ($1 parameters, ON CONFLICT, RETURNING); SQLite-specific
// code is in sqlite.go and in the migrations.
package store
