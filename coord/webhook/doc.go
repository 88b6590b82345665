// Package webhook tells programs of others what happened: one event is one POST of JSON
// over HTTPS, signed. It is without a database: coord/ops says what is sent to whom, and
// when again.
//
//	event.go   what is sent, and which names and patterns events have
//	sign.go    the signature
//	verify.go  how a receiver checks it
//	target.go  which addresses are not dialled
//	post.go    one attempt
//	retry.go   when the next one is made
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
// Answer 2xx within ten seconds, and do the work afterwards. Whatever else is answered,
// a redirect too, is a failure: the same event is sent again after seconds, then minutes,
// then every hour. Events come in order; while one fails, later ones wait. After a day of
// failures the webhook is paused until somebody enables it again. What is older than a
// week is not sent any more, but counted.
//
// An event may come more than once, with the same Weft-Id: remember those of the last
// week, or be sure that doing it twice does no harm.
//
// To check the signature, take the body byte by byte as it came, and compute
// HMAC-SHA256 with the secret (the whole text, whsec_ included, as the key) over the
// digits of t, a full stop, and the body. One of the v1, in hexadecimal, must be equal,
// compared in constant time; there are two for a while after the secret was rotated. Then
// refuse what has a t more than five minutes from your clock: somebody may have kept it.
//
// With the secret whsec_example, t=1764500000 and the body {"schema":"event/1"} it is
//
//	v1=212f284104fa6f8040998f7f80c8ff3c9b1599e6c157ccb09f15a3b6da922d9c
//
// A receiver in Go uses Verify. Fields of the body are added, never changed.
package webhook
