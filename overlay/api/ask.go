package api

import "time"

// A device without a token asks to join, and a signed-in person approves the code that it
// shows (package overlay, ask.go; coord/ops, ask.go):
//
//	GET  /.well-known/weft    -> Pins        the public site, whatever its certificate
//	POST /v1/ask       Ask    -> Asked       self-signed certificate over the identity key
//	POST /v1/ask/poll  Poll   -> Asked       the same key
//	POST /v1/ask/end   {}     -> 204         the same key: the device no longer waits
//
// The device learns from Pins which server CA to expect, and believes it only if the
// certificate of the site is trusted, or is the one that a person compared; everything
// after that goes over a link that is pinned to it. Asked repeats both pins on that link.
// Servers before 2026-11-30 answer 404.
//
// A device that has joined asks in the same way to be signed in again (Config.SignIn), with
// its own certificate or the self-signed one. If that is not due yet, the answer is that it
// was approved.

// PinsPath is where the public site has Pins, and ApprovePath the page on which people
// type the code, or find it typed in: ApprovePath?code=CODE.
const (
	PinsPath    = "/.well-known/weft"
	ApprovePath = "/approve"
)

// Pins are what a join token has beside its secret.
type Pins struct {
	Server  string   `json:"server_pin"`  // SHA-256 of the key of the server CA, hex
	Network string   `json:"network_pin"` // the same of the network CA
	URLs    []string `json:"urls"`        // https://HOST[:PORT]
}

// Ask is a device's request to be let in.
type Ask struct {
	Protocol int    `json:"protocol"`
	CSR      []byte `json:"csr"` // PKCS #10, DER, over the key of the TLS connection
	Hostname string `json:"hostname"`
	OS       string `json:"os"`
	Software string `json:"software"`
	// SignIn says that the device has joined, and is to be signed in again by its person.
	SignIn bool `json:"sign_in,omitempty"`
}

// Poll asks how a request stands; SignIn is as in Ask.
type Poll struct {
	SignIn bool `json:"sign_in,omitempty"`
}

// Asked is how a request stands.
type Asked struct {
	State string `json:"state"` // one of the constants below
	// Code is what the person types, only in the answer to Ask. Expires is until when
	// it can be approved.
	Code    string    `json:"code,omitempty"`
	Expires time.Time `json:"expires"`
	Server  string    `json:"server_pin"`
	Network string    `json:"network_pin"`
	// Join is set if State is AskApproved.
	Join *JoinResponse `json:"join,omitempty"`
}

// The states of a request.
const (
	AskWaiting  = "waiting"
	AskApproved = "approved"
	AskDenied   = "denied"
	// AskUnknown is that of a request that has expired, or that a server does not know
	// any more since it was restarted: the device asks anew, if it still wants to.
	AskUnknown = "unknown"
)

// AskLife is how long a request waits.
const AskLife = 10 * time.Minute
