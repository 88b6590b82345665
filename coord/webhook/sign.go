package webhook

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// The headers of a request.
const (
	SignatureHeader = "Weft-Signature"
	IDHeader        = "Weft-Id"
	EventHeader     = "Weft-Event"
)

// SecretPrefix is what secrets begin with, so that scanners for secrets find them.
const SecretPrefix = "whsec_"

// Secret is the text of a secret of 32 random bytes.
func Secret(random []byte) string {
	return SecretPrefix + base64.RawURLEncoding.EncodeToString(random)
}

// Tolerance is how far the time of a signature may be from the receiver's clock.
const Tolerance = 5 * time.Minute

// ErrSignature means that a request was not made by who has the secret, or not now.
var ErrSignature = errors.New("the signature is not right")

// Sign returns the header of a body that is sent at now. Each secret makes one
// signature.
func Sign(secrets []string, now time.Time, body []byte) string {
	t := strconv.FormatInt(now.Unix(), 10)
	header := "t=" + t
	for _, s := range secrets {
		header += ",v1=" + hex.EncodeToString(mac(s, t, body))
	}
	return header
}

func mac(secret, t string, body []byte) []byte {
	h := hmac.New(sha256.New, []byte(secret))
	h.Write([]byte(t))
	h.Write([]byte{'.'})
	h.Write(body)
	return h.Sum(nil)
}

// Verify checks, for a receiver, the header that came with a body: one of its
// signatures must be of the secret, and its time within Tolerance of now. Errors wrap
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
		return fmt.Errorf("%w: it is of %s", ErrSignature, time.Unix(sec, 0).UTC().Format(time.RFC3339))
	}
	return nil
}
