package api

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
)

// IntroductionsHeader is the request header in which a node whose Config says so tells who
// introduced themselves to it, and to whom it did, with whatever it asks the server anyway.
// The value is what EncodeIntroductions returns. A server that has stored it answers with
// the same header, whose value does not matter; nodes then do not say it again. What is
// said twice counts once: Hour, Peer, Inbound and First make a row.
const IntroductionsHeader = "Weft-Introductions"

// Bounds of one request.
const (
	MaxIntroductions      = 40
	maxIntroductionsValue = 12 << 10
)

// Introduction is what a node says of one peer in one hour.
type Introduction struct {
	Peer    string `json:"peer,omitempty"` // NodeID, hex; "" for several peers, of which nothing but the number is known
	Name    string `json:"name,omitempty"` // in the certificate that the peer presented
	User    string `json:"user,omitempty"`
	Inbound bool   `json:"inbound,omitempty"` // the peer introduced itself, else this node did
	Count   int    `json:"count"`             // at least 1
	// First and Last are times in unix seconds by the node's weft time, in the same hour
	// unless Peer is "".
	First int64  `json:"first"`
	Last  int64  `json:"last"`
	Paths string `json:"paths,omitempty"` // kinds of path used, and suites, as in the status: "aes direct relay"; unknown words are ignored
}

// EncodeIntroductions returns as many of list, from its beginning, as fit into a request,
// and how many these are; "" for none.
func EncodeIntroductions(list []Introduction) (value string, n int) {
	for n = min(len(list), MaxIntroductions); n > 0; n-- {
		b, err := json.Marshal(list[:n])
		if err != nil {
			return "", 0 // it consists of texts and numbers
		}
		if value = base64.RawURLEncoding.EncodeToString(b); len(value) <= maxIntroductionsValue {
			return value, n
		}
	}
	return "", 0
}

var errIntroductions = errors.New("not a list of introductions")

// ParseIntroductions is the inverse of EncodeIntroductions. It checks the form alone:
// texts are bounded and may hold anything, numbers are in range and times in order.
func ParseIntroductions(value string) ([]Introduction, error) {
	if len(value) > maxIntroductionsValue {
		return nil, fmt.Errorf("%w: it is too long", errIntroductions)
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(value)
	if err != nil {
		return nil, fmt.Errorf("%w: it is not in base64", errIntroductions)
	}
	var list []Introduction
	if err := json.Unmarshal(b, &list); err != nil {
		return nil, fmt.Errorf("%w: it is not in JSON", errIntroductions)
	}
	if len(list) == 0 || len(list) > MaxIntroductions {
		return nil, fmt.Errorf("%w: it has %d, want 1 to %d", errIntroductions, len(list), MaxIntroductions)
	}
	for _, i := range list {
		if i.Count < 1 || i.First < 1 || i.Last < i.First || len(i.Peer) > 64 || len(i.Name) > 255 || len(i.User) > 255 || len(i.Paths) > 64 {
			return nil, fmt.Errorf("%w: one of them is out of range", errIntroductions)
		}
	}
	return list, nil
}
