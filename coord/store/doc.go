// Package store is the coordination server's truth: one SQLite database that
// holds the network, its users, keys, nodes, issued serials, sessions and the
// audit.
//
// A file for each kind of row: network.go, user.go, key.go, node.go with certificate.go
// (of nodes) and name.go, addr.go, dns.go, relay.go, audit.go with introduction.go, change.go; prune.go and
// dropped.go for what nobody needs any more.
//
// # Writing
//
// There is one writer: a goroutine that owns the only writing connection.
// Write hands it a function; all functions that wait while a transaction is
// being made durable share the next one. Each runs under a savepoint of its
// own, so one that fails undoes itself and nothing else, and all of a batch
// share one fsync. Write returns after the commit: what it acknowledged
// survives a power cut (WAL, synchronous=FULL).
//
// Memory that mirrors the database is changed by functions registered with
// Tx.After. They run after the commit, in commit order, on the writer's
// goroutine, and before the callers of Write are answered.
//
// # Reading
//
// Read runs a function on one of a few reading connections, inside a read
// transaction: it sees one consistent state, and never blocks or is blocked
// by the writer.
//
// # Audit
//
// Records are appended in the transaction of what they tell of (Tx.AppendAudit),
// and signed for once per batch: a batch whose last record has no signed head
// (Tx.SetAuditHead, in Options.Seal) fails as a whole.
//
// # Conventions
//
// Every table has network_id. Times are unix seconds (milliseconds in the
// audit), NULL for "never"; the zero time is never stored (CHECK constraints
// refuse it). The SQL is written for SQLite and PostgreSQL alike ($1 parameters,
// ON CONFLICT, RETURNING); what is SQLite's own stands in sqlite.go and in the
// migrations.
package store
