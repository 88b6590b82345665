package status

import "time"

// Asked is what a device that asks to join without a token has to show to its user.
type Asked struct {
	// Code is what a signed-in person approves at URL, which names it already, until
	// Expires.
	Code    string    `json:"code,omitempty"`
	URL     string    `json:"url,omitempty"`
	Expires time.Time `json:"expires,omitzero"`
	// SignIn says that the device has joined, and the person whose it is signs it in again.
	SignIn bool `json:"sign_in,omitempty"`
	// Fingerprint is set instead if the server's certificate is not trusted here: the
	// SHA-256 that browsers and `weft-server serve` show. Nothing was asked.
	Fingerprint string `json:"fingerprint,omitempty"`
}
