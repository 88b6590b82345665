// Package console is the web console of the coordination server: pages made
// on the server with html/template, kept live with htmx and one stream of
// server-sent events.
//
// New makes an http.Handler for the whole public site except /weft and
// /healthz. It talks to the network through Backend only. See Backend for who
// stores and who checks what.
package console
