// Package coord is the coordination server: listeners around the operations of
// package ops. It serves nodes and relays, the public site and console, STUN, and
// the API on a socket in the data directory (package webapi). It holds no connection to nodes; relays do: the one in
// the same process, and those that run alone (package standalone).
//
//	server.go   Server: opens everything, closes everything
//	site.go     the public site
//	acme.go     its certificate from an ACME CA
//	metrics.go  what the server counts
//	welcome.go  what the owner of a new network needs to begin
package coord
