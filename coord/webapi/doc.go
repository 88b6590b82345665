// Package webapi is the server's public API: /api/v1, the only way in for programs,
// the verbs of weft-server among them. Its document, OpenAPI 3.1, is made from the code
// and served at /api/openapi.json. The types on the wire are those of coord/ops and
// coord/store; package client has a client over the same ones.
//
//	webapi.go   the handler: what a request must be, whatever it asks
//	problem.go  errors as RFC 9457 problems, in the words of coord/ops
//	page.go     pages and their cursors, If-Match
//	once.go     requests with an idempotency key, which are done once
//	socket.go   the unix socket in the data directory: whoever has that is root
//	public.go   the public site: whoever has a token, and how often
//	devices.go, keys.go, users.go, tokens.go, dns.go, network.go, policy.go, audit.go,
//	webhooks.go  the operations
//
// Who asks is the transport's to say (WithActor), and coord/ops says what he may do:
// each operation here names the rows of ops.Operations that it does. A new operation
// that changes something goes through do, and its PATCH and PUT take If-Match.
//
// A request is refused when it has fields or parameters that the document does not
// have, a key twice, text that is not Unicode or holds a NUL, more than 1 MB, or JSON
// nested deeper than 16. Names in a path are as people say them: a device's name, its
// address or its id.
//
// # Versions
//
// What is in /api/v1 stays as it is. Operations, parameters, fields of answers and values
// of Problem.Code are added; none is removed, renamed, made required or given another
// meaning, and no text for people (Detail, Hint) is part of it. Programs ignore fields
// that they do not know. The document lists what there is.
//
// An operation that is to go says so in each answer first: Deprecation (RFC 9745) with
// the date from which it is, a Link with rel="deprecation" to what to do instead, and
// Sunset (RFC 8594) with the date after which it may be gone, at least a year later; the
// document marks it as deprecated, and the change log names it. What cannot be said in
// /api/v1 any more would be /api/v2, and both are served until the Sunset of the first.
package webapi
