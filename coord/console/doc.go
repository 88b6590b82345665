// Package console is the web console of the coordination server: pages made
// on the server with html/template, kept live with htmx and one stream of
// server-sent events.
//
// New makes an http.Handler for the whole public site except /weft and
// /healthz. What it shows are queries of package ops, and what it does commands, run
// in this process as an ops.Actor: whoever is signed in. Who may see and do what is
// decided there, not here: a page of what one may not see does not exist (404), and
// what one may see and not do is refused (403).
//
// The console makes every secret of its own: the tokens of sessions and the hashes of
// passwords (argon2id). It checks passwords, limits the rate of sign-ins and says which
// session is still good; ops gets hashes only, and a word about each sign-in that was
// refused.
//
// A request passes, in this order (console.go): security headers, the bound on
// its body, the cross-origin check, the route table (routes.go), the session
// (session.go), and then the page: devices.go, device.go (its forms: device_edit.go;
// its connection test: connection.go), access.go (access_check.go: what would come of a
// policy; access_can.go: a question), dns.go, join.go, keys.go, activity.go
// (activity_change.go: what a record changed; activity_export.go, activity_verify.go),
// introductions.go, account.go, signin.go. view.go draws it, with what it refers to from assets.go. Live pages
// hold one stream (events.go) that only says what changed; the page then fetches its
// own address again and takes the part it shows, so there is one way to draw each
// thing and nothing to replay.
//
// Reading works without JavaScript, and so does every form. Every string that
// a device or a browser made up goes through clean (text.go) before it meets a
// template, and html/template escapes it for its place.
//
// Sign-in is limited per account and per address, in the memory of this
// process. Somebody who keeps an account's limit used up cannot end a live
// session, and a new one-time link ("weft-server login-link") always signs in.
package console
