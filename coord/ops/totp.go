package ops

import (
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base32"
	"encoding/binary"
	"fmt"
	"net/url"
	"strings"
	"time"
)

// Codes that change every 30 seconds (TOTP, RFC 6238), with the parameters that every
// authenticator app supports: HMAC-SHA-1 and six digits. The FIPS module has no SHA-1, so in FIPS
// mode new codes use HMAC-SHA-256, which most apps support, and codes that were set up before are
// refused. The length of the secret says which of the two a code uses. There is no library for
// this because it is short, and because the caller has to know the step of a code, so that no
// code is accepted twice.

const (
	totpPeriod = 30 // seconds
	totpSkew   = 1  // steps by which a phone's clock may be wrong

	totpSecret    = 20 // bytes, for HMAC-SHA-1
	totpSecret256 = 32 // for HMAC-SHA-256
)

var base32Plain = base32.StdEncoding.WithPadding(base32.NoPadding)

func totpStep(t time.Time) int64 { return t.Unix() / totpPeriod }

// totpCode returns the code of a step.
func totpCode(secret []byte, step int64) string {
	sum := sha1.New
	if TOTPSHA256(secret) {
		sum = sha256.New
	}
	h := hmac.New(sum, secret)
	h.Write(binary.BigEndian.AppendUint64(nil, uint64(step)))
	b := h.Sum(nil)
	i := b[len(b)-1] & 15
	return fmt.Sprintf("%06d", binary.BigEndian.Uint32(b[i:])&0x7fffffff%1_000_000)
}

// matchTOTP returns the step, around now and after last, whose code this is. last is the last
// step of which a code was used. approved says that FIPS mode is on: then codes with HMAC-SHA-1
// do not match.
func matchTOTP(approved bool, secret []byte, code string, now time.Time, last int64) (step int64, ok bool) {
	if approved && !TOTPSHA256(secret) {
		return 0, false
	}
	for s := totpStep(now) - totpSkew; s <= totpStep(now)+totpSkew; s++ {
		if subtle.ConstantTimeCompare([]byte(totpCode(secret, s)), []byte(code)) == 1 && s > last && !ok {
			step, ok = s, true
		}
	}
	return step, ok
}

// TOTPSHA256 reports whether the codes of a secret use SHA-256. People who type the secret into
// an app have to set that there.
func TOTPSHA256(secret []byte) bool { return len(secret) == totpSecret256 }

// TOTPText returns a secret in the form that people type into an authenticator app.
func TOTPText(secret []byte) string { return base32Plain.EncodeToString(secret) }

// TOTPURL returns the content of the QR code that authenticator apps scan. It names the user and
// the network, by its suffix.
func TOTPURL(secret []byte, user, network string) string {
	q := url.Values{"secret": {TOTPText(secret)}, "issuer": {"weft"}}
	if TOTPSHA256(secret) {
		q.Set("algorithm", "SHA256")
	}
	return "otpauth://totp/" + url.PathEscape("weft:"+user+" "+network) + "?" + strings.ReplaceAll(q.Encode(), "+", "%20")
}
