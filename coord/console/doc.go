// Package console is the web console of the coordination server: pages made
// on the server with html/template, kept live with htmx and one stream of
// server-sent events.
//
// New makes an http.Handler for the whole public site except /weft and /healthz. Pages show
// queries of package ops, and forms run its commands, in this process, with the user who is
// signed in as the ops.Actor. Package ops decides what he may see and do: a page about a
// thing that he may not see does not exist (404), and a change that he may not make is
// refused (403).
//
// The console makes all its secrets itself: the tokens of sessions and the hashes of
// passwords (argon2id). It checks passwords, limits the rate of sign-ins and decides which
// sessions are valid; ops receives only hashes, and a note about each refused sign-in.
//
// A request passes, in this order (console.go): security headers, the bound on
// its body, the cross-origin check, the route table (routes.go), the session
// (session.go), and then the page: devices.go (devices_filter.go: what the
// list is narrowed by; devices_look.go: its columns; devices_bulk.go, devices_csv.go), device.go (its tabs:
// device_overview.go, device_activity.go, device_settings.go; its line of round trips:
// latency.go, connection.go; who reaches it: reach.go; undoing a change: undo.go), access.go
// (access_rules.go: rules, tests, tags and groups for reading; access_history.go, textdiff.go;
// access_check.go: what a policy would change; access_can.go: may one reach another),
// add.go, join.go, approve.go, network.go (network_health.go: what the server says of itself), dns.go,
// keys.go, settings.go, settings_signin.go, webhooks.go, tokens.go, releases.go (sections.go: who
// sees which of these; moved.go: where they were), activity.go (activity_change.go: what a record
// changed; activity_export.go, activity_verify.go), introductions.go, account.go, signin.go,
// code.go, factor.go, passkey.go, oidc.go, identities.go (who waits for approval), again.go
// (a recent sign-in), palette.go (the search over everything). view.go draws the page, with
// what pages have in common (parts.go, spark.go), the sections (nav.go) and light or dark
// (theme.go); style.go shows all parts to who changes them. compress.go says which pages are
// compressed; assets.go serves style sheet and scripts.
//
// Live pages hold one stream (events.go), which only names what changed; the page then
// fetches its own address again and replaces the changed part, so each thing is drawn by
// one function, and nothing has to be replayed. static/script (20-live.js) says so when the stream
// is silent, and keeps what was typed when the session ends (40-drafts.js) and when
// somebody else changes what a form shows (54-changed.js).
//
// Every page and every form works without JavaScript. Every string from a device or a
// browser goes through clean (text.go) before a template gets it, and html/template
// escapes it for its place.
//
// Attempts to sign in are limited in the memory of this process, by address, by account
// and by both together, so that guessing keeps nobody out (attempts.go). A new one-time
// link ("weft-server login-link") always signs in.
package console
