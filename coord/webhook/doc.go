// Package webhook sends events to other programs: each event is one signed POST of JSON
// over HTTPS. It has no database: coord/ops decides which events go to which receiver, and
// when to retry.
//
//	event.go   events: their JSON, names and patterns
//	sign.go    the signature of a request
//	verify.go  how a receiver checks the signature
//	target.go  to which addresses events may be sent
//	post.go    one attempt to send an event
//	retry.go   when the next attempt is made
//
// # For those who write a receiver
//
// A request is
//
//	POST /your/path HTTP/1.1
//	Content-Type: application/json
//	Weft-Id: a1042-5f0e1c9a77d2b3e4
//	Weft-Event: device.rename
//	Weft-Signature: t=1764500000,v1=9d1f…,v1=04ab…
//
//	{"schema":"event/1","id":"a1042-5f0e1c9a77d2b3e4","at":"2026-11-30T10:53:20.000Z",…}
//
// Answer 2xx within ten seconds, and do the work afterwards. Any other answer, also a
// redirect, is a failure: the same event is sent again after seconds, then minutes, then
// every hour. Events arrive in order; while one fails, later ones wait. After a day of
// failures the webhook is paused until somebody enables it again. Events older than a week
// are no longer sent, only counted.
//
// An event may arrive more than once, with the same Weft-Id: remember the ids of the last
// week, or make sure that handling an event twice does no harm.
//
// To check the signature, take the bytes of the body unchanged, and compute
// HMAC-SHA256 with the secret (the whole text, whsec_ included, as the key) over the
// digits of t, a full stop, and the body. It must equal one of the v1, which are
// hexadecimal; compare in constant time. For a while after the secret was rotated there are
// two v1. Then refuse a request whose t is more than five minutes from your clock: somebody
// may have recorded it and sent it again.
//
// With the secret whsec_example, t=1764500000 and the body {"schema":"event/1"} it is
//
//	v1=212f284104fa6f8040998f7f80c8ff3c9b1599e6c157ccb09f15a3b6da922d9c
//
// A receiver in Go uses Verify. Fields of the body are added, never changed.
package webhook
