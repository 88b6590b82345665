// Package coord is the coordination server: listeners around the operations of package ops. It
// serves nodes and relays, the public site and the console, STUN, and the API on a socket in the
// data directory (package webapi). Nodes keep no connection to the server itself, but to relays:
// the one in the same process, and standalone ones (package standalone).
//
//	server.go   Server: opens and closes everything
//	site.go     the public site
//	acme.go     the site's certificate from an ACME CA
//	health.go   facts about the server for the console
//	metrics.go  what the server counts
//	welcome.go  what the owner of a new network needs to begin
package coord
