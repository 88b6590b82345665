package audit

import (
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"weft/overlay/cert"
)

// Hash is the hash of a record, and through it of all before it.
type Hash [sha256.Size]byte

// String returns the hash as 64 lower-case hexadecimal digits.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// Genesis is the hash that the first record of a network follows.
func Genesis(network cert.NetworkID) Hash {
	return sha256.Sum256(append([]byte("weft audit chain v1\x00"), network[:]...))
}

// Next returns the hash of the record with this encoding that follows h.
func (h Hash) Next(encoding []byte) Hash {
	d := sha256.New()
	d.Write(h[:])
	d.Write(encoding)
	return Hash(d.Sum(nil))
}

// Head states that record Seq, with this Hash, is the last one. Seq 0 means that there is no
// record yet.
type Head struct {
	Network   cert.NetworkID
	Seq       uint64
	Hash      Hash
	At        time.Time // UTC, whole milliseconds
	Signature []byte    // ECDSA in ASN.1, at most 80 bytes; nil before Sign
}

// Checkpoint states that the records up to Seq were removed because they were old. Hash is
// that of record Seq.
type Checkpoint Head

const (
	headPrefix       = "weft audit head v1\x00"
	checkpointPrefix = "weft audit checkpoint v1\x00"

	maxSignature = 80 // an ECDSA signature of P-256 has at most 72 bytes
	headSize     = 1 + 16 + 8 + 32 + 8
)

// ErrUnsigned means that a head or checkpoint is not signed by a CA of the network.
var ErrUnsigned = errors.New("not signed by this network's CA")

// body appends the text that is signed.
func (h Head) body(b []byte) []byte {
	b = append(b, h.Network[:]...)
	b = binary.BigEndian.AppendUint64(b, h.Seq)
	b = append(b, h.Hash[:]...)
	return binary.BigEndian.AppendUint64(b, uint64(h.At.UnixMilli()))
}

func (h Head) sign(prefix string, key crypto.Signer, now time.Time) (Head, error) {
	h.At = time.UnixMilli(min(max(now.UnixMilli(), 1), maxAt-1)).UTC()
	sum := sha256.Sum256(h.body([]byte(prefix)))
	sig, err := key.Sign(rand.Reader, sum[:], crypto.SHA256)
	if err != nil {
		return Head{}, fmt.Errorf("sign audit: %w", err)
	}
	h.Signature = sig
	return h, nil
}

func (h Head) verify(prefix string, network cert.NetworkID, cas []*x509.Certificate) error {
	if h.Network != network {
		return fmt.Errorf("it belongs to network %s: %w", h.Network, ErrUnsigned)
	}
	if !slices.ContainsFunc(cas, func(ca *x509.Certificate) bool { return cert.PinOf(ca).NetworkID() == network }) {
		return fmt.Errorf("none of the CAs founded network %s: %w", network, ErrUnsigned)
	}
	message := h.body([]byte(prefix))
	if len(h.Signature) > maxSignature || !slices.ContainsFunc(cas, func(ca *x509.Certificate) bool {
		return ca.CheckSignature(x509.ECDSAWithSHA256, message, h.Signature) == nil
	}) {
		return ErrUnsigned
	}
	return nil
}

// Sign returns the head, signed with the key of a CA of its network at now.
func (h Head) Sign(key crypto.Signer, now time.Time) (Head, error) {
	return h.sign(headPrefix, key, now)
}

// Verify checks that the head belongs to network and is signed by one of cas: the CA whose
// key gave the network its id, and the successors that the caller trusts. Errors wrap
// ErrUnsigned.
func (h Head) Verify(network cert.NetworkID, cas []*x509.Certificate) error {
	return h.verify(headPrefix, network, cas)
}

// Sign returns the checkpoint, signed with the key of a CA of its network at now.
func (c Checkpoint) Sign(key crypto.Signer, now time.Time) (Checkpoint, error) {
	h, err := Head(c).sign(checkpointPrefix, key, now)
	return Checkpoint(h), err
}

// Verify is Head.Verify for a checkpoint.
func (c Checkpoint) Verify(network cert.NetworkID, cas []*x509.Certificate) error {
	return Head(c).verify(checkpointPrefix, network, cas)
}

// String returns the head with its signature as one line of hexadecimal digits, which can be
// saved elsewhere.
func (h Head) String() string {
	return hex.EncodeToString(append(h.body([]byte{version}), h.Signature...))
}

// ParseHead is the inverse of String. It ignores white space around s, and does not verify
// the signature.
func ParseHead(s string) (Head, error) {
	s = strings.TrimSpace(s)
	if len(s) > 2*(headSize+maxSignature) {
		return Head{}, errors.New("not the head of an audit: it is too long")
	}
	b, err := hex.DecodeString(s)
	if err != nil {
		return Head{}, errors.New("not the head of an audit: a head is one line of hexadecimal digits")
	}
	if len(b) <= headSize || b[0] != version {
		return Head{}, errors.New("not the head of an audit: it is cut off, or was made by a newer version")
	}
	h := Head{
		Network: cert.NetworkID(b[1:17]), Seq: binary.BigEndian.Uint64(b[17:]), Hash: Hash(b[25:57]),
		At: time.UnixMilli(int64(binary.BigEndian.Uint64(b[57:]))).UTC(), Signature: b[headSize:],
	}
	if at := h.At.UnixMilli(); h.Seq > math.MaxInt64 || at <= 0 || at >= maxAt {
		return Head{}, errors.New("not the head of an audit: a number in it is out of range")
	}
	return h, nil
}

// MarshalText implements encoding.TextMarshaler by String.
func (h Head) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler by ParseHead.
func (h *Head) UnmarshalText(b []byte) (err error) {
	*h, err = ParseHead(string(b))
	return err
}
