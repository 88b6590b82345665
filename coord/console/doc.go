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
// A request passes, in this order (console.go): security headers, the bound on its body,
// the cross-origin check, the route table (routes.go), the session (session.go), and then
// the page:
//
//	devices.go    the list: devices_filter.go what it is narrowed by, devices_look.go its
//	              columns, devices_bulk.go changing many, devices_csv.go
//	device.go     one device, in tabs: device_overview.go (latency.go and connection.go:
//	              its line of round trips; reach.go: who reaches it), device_activity.go,
//	              device_settings.go; undo.go undoes a change
//	add.go        what joins, and with which line; join.go follows it, approve.go lets in
//	              what asks without a token
//	people.go     the list: person.go one of them, invite.go, groups.go, identities.go
//	              who waits for approval
//	access.go     the policy's text: access_rules.go for reading, access_check.go what a
//	              change would do, access_can.go, access_history.go with textdiff.go
//	activity.go   the audit: activity_change.go what a record changed, activity_export.go,
//	              activity_verify.go; introductions.go what devices report
//	network.go    relays and the server: network_health.go; dns.go, keys.go
//	settings.go   the network: settings_signin.go, webhooks.go, tokens.go, releases.go
//	account.go    one's own: password.go, factor.go, code.go, passkey.go
//	signin.go     signing in: oidc.go at a provider, again.go once more, attempts.go how
//	              often; box.go seals what a browser holds for us
//	palette.go    the search over everything
//	moved.go      where pages were before
//
// and what pages have in common:
//
//	view.go       draws a page; nav.go its sections, sections.go who sees which tabs
//	parts.go      statuses, paths, chips and menus; spark.go lines of figures; style.go
//	              shows all parts, to who changes them
//	text.go       names, times and numbers as people read them, of foreign strings too
//	theme.go      light or dark
//	events.go     the stream of what changes
//	assets.go     style sheet and scripts, and what of them stands in pages; compress.go
//	              which answers are compressed
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
