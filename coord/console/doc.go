// Package console is the web console of the coordination server: pages made
// on the server with html/template, kept live with htmx and one stream of
// server-sent events.
//
// New makes an http.Handler for the whole public site except /weft and
// /healthz. It talks to the network through Backend only; see there for who
// stores and who checks what.
//
// A request passes, in this order (console.go): security headers, the bound on
// its body, the cross-origin check, the route table (routes.go), the session
// (session.go), and then the page: devices.go, dns.go, join.go, keys.go,
// account.go, signin.go. Live pages hold one stream (events.go) that only says what
// changed; the page then fetches its own address again and takes the part it
// shows, so there is one way to draw each thing and nothing to replay.
//
// Reading works without JavaScript, and so does every form. Every string that
// a device or a browser made up goes through clean (view.go) before it meets a
// template, and html/template escapes it for its place.
//
// Sign-in is limited per account and per address, in the memory of this
// process. Somebody who keeps an account's limit used up cannot end a live
// session, and a new one-time link ("weft-server login-link") always signs in.
package console
