// Package webapi is the server's public API, /api/v1: programs use it, and so do the
// verbs of weft-server. Its OpenAPI 3.1 document is made from the code and served at
// /api/openapi.json. The types on the wire are those of coord/ops and coord/store;
// package client is a Go client that uses the same types.
//
//	webapi.go   the handler: the checks that every request has to pass
//	problem.go  errors as RFC 9457 problems, with the texts of coord/ops
//	page.go     pages and their cursors, If-Match
//	once.go     requests with an idempotency key, which are done once
//	socket.go   the unix socket in the data directory, whose users are root
//	public.go   the public site: tokens, and limits on the rate of requests
//	devices.go, requests.go, keys.go, users.go, groups.go, tokens.go, signin.go, oidc.go,
//	dns.go, network.go, policy.go, audit.go, webhooks.go  the operations
//
// The transport says who sends a request (WithActor), and coord/ops decides what that
// actor may do: each operation here names its rows of ops.Operations. A new operation
// that changes something goes through do, and its PATCH and PUT take If-Match.
//
// A request is refused when it has fields or parameters that the document does not
// have, a key twice, text that is not Unicode or holds a NUL, more than 1 MB, or JSON
// nested deeper than 16. A path names a device by its name, its address or its id, and
// other things by name or id.
//
// # Versions
//
// /api/v1 stays compatible. Operations, parameters, fields of answers and values
// of Problem.Code are added; none is removed, renamed, made required or given another
// meaning. Texts for people (Detail, Hint) may change at any time. Programs must ignore
// fields that they do not know. The document lists everything that exists.
//
// Before an operation is removed, its answers announce that: Deprecation (RFC 9745) with
// the date since which it is deprecated, a Link with rel="deprecation" to its
// replacement, and Sunset (RFC 8594) with the date after which it may be removed, at
// least a year later. The document marks it as deprecated, and the change log names it.
// A change that does not fit into /api/v1 would go into /api/v2, and both would be
// served until the Sunset of the first.
package webapi
