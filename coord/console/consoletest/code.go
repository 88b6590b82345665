package consoletest

import (
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"time"
)

// Code is what a program for codes shows at a time (RFC 6238).
func Code(secret []byte, at time.Time) string {
	sum := sha1.New
	if len(secret) == 32 { // of FIPS mode
		sum = sha256.New
	}
	h := hmac.New(sum, secret)
	binary.Write(h, binary.BigEndian, uint64(at.Unix())/30)
	b := h.Sum(nil)
	return fmt.Sprintf("%06d", (binary.BigEndian.Uint32(b[b[len(b)-1]&15:])&0x7fffffff)%1e6)
}
