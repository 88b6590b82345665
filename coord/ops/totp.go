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
// program for them has: HMAC-SHA-1, six digits. In FIPS mode, whose module has no SHA-1,
// they are made with HMAC-SHA-256, which most programs have, and those from before are
// refused; the length of a secret says which it is for. It is a function of ten lines,
// and what is checked here needs to know which step a code was of, so that none is taken
// twice.

const (
	totpPeriod = 30 // seconds
	totpSkew   = 1  // steps by which a phone's clock may be wrong

	totpSecret    = 20 // bytes, for HMAC-SHA-1
	totpSecret256 = 32 // for HMAC-SHA-256
)

var base32Plain = base32.StdEncoding.WithPadding(base32.NoPadding)

func totpStep(t time.Time) int64 { return t.Unix() / totpPeriod }

// totpCode is the code of a step.
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

// matchTOTP finds the step that a code is of, around now and after the last one that
// was used. approved is of FIPS mode, which takes none of secrets from before.
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

// TOTPSHA256 reports whether codes of a secret are made with SHA-256: a program that the
// secret is typed into has to be told.
func TOTPSHA256(secret []byte) bool { return len(secret) == totpSecret256 }

// TOTPText is a secret as people type it, and TOTPURL as programs for codes scan it.
func TOTPText(secret []byte) string { return base32Plain.EncodeToString(secret) }

// TOTPURL is the address in the QR code: user at network (its suffix).
func TOTPURL(secret []byte, user, network string) string {
	q := url.Values{"secret": {TOTPText(secret)}, "issuer": {"weft"}}
	if TOTPSHA256(secret) {
		q.Set("algorithm", "SHA256")
	}
	return "otpauth://totp/" + url.PathEscape("weft:"+user+" "+network) + "?" + strings.ReplaceAll(q.Encode(), "+", "%20")
}
