package webhook

import (
	"crypto/hmac"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Tolerance is how far the time of a signature may be from the receiver's clock.
const Tolerance = 5 * time.Minute

// ErrSignature means that a request was not signed with the secret, or not at a time within
// Tolerance.
var ErrSignature = errors.New("the signature is wrong")

// Verify checks the header Weft-Signature of a request: one of its signatures must be
// made with the secret, and its time must be within Tolerance of now. Errors wrap
// ErrSignature.
func Verify(secret, header string, body []byte, now time.Time) error {
	var t string
	var sums [][]byte
	for part := range strings.SplitSeq(header, ",") {
		key, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		switch key {
		case "t":
			t = value
		case "v1":
			if b, err := hex.DecodeString(value); err == nil && len(sums) < 8 {
				sums = append(sums, b)
			}
		}
	}
	sec, err := strconv.ParseInt(t, 10, 64)
	if err != nil {
		return fmt.Errorf("%w: it has no time", ErrSignature)
	}
	want, good := mac(secret, t, body), false
	for _, s := range sums {
		good = hmac.Equal(s, want) || good
	}
	if !good {
		return fmt.Errorf("%w: it was made with another secret, or the body was changed", ErrSignature)
	}
	if away := now.Sub(time.Unix(sec, 0)); away > Tolerance || away < -Tolerance {
		return fmt.Errorf("%w: it was made at %s, which is more than %s from this clock", ErrSignature, time.Unix(sec, 0).UTC().Format(time.RFC3339), Tolerance)
	}
	return nil
}
