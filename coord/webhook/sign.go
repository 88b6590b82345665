package webhook

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"strconv"
	"time"
)

// The headers of a request.
const (
	SignatureHeader = "Weft-Signature"
	IDHeader        = "Weft-Id"
	EventHeader     = "Weft-Event"
)

// SecretPrefix begins each secret, so that scanners for leaked secrets recognize them.
const SecretPrefix = "whsec_"

// Secret returns the text of a secret. random should have 32 bytes.
func Secret(random []byte) string {
	return SecretPrefix + base64.RawURLEncoding.EncodeToString(random)
}

// Sign returns the header Weft-Signature for a body that is sent at now, with one signature for
// each secret.
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
