// Package webapi is the server's public API: /api/v1, the only way in for programs,
// the verbs of weft-server among them. Its document, OpenAPI 3.1, is made from the code
// and served at /api/openapi.json. The types on the wire are those of coord/ops and
// coord/store; package client has a client over the same ones.
//
//	webapi.go   the handler: what a request must be, whatever it asks
//	problem.go  errors as RFC 9457 problems, in the words of coord/ops
//	page.go     pages and their cursors, If-Match
//	socket.go   the unix socket in the data directory: whoever has that is root
//	devices.go, keys.go, users.go, dns.go, network.go, policy.go, audit.go,
//	webhooks.go  the operations
//
// Who asks is the transport's to say (WithActor), and coord/ops says what he may do:
// each operation here names the rows of ops.Operations that it does. There are no
// tokens for it yet, so it is on the socket and nowhere else: nothing mounts it on the
// public site.
//
// A request is refused when it has fields or parameters that the document does not
// have, a key twice, text that is not Unicode or holds a NUL, more than 1 MB, or JSON
// nested deeper than 16. Names in a path are as people say them: a device's name, its
// address or its id.
//
// What is in /api/v1 stays as it is: fields and operations are added only.
package webapi
