// Package seal encrypts a backup with a passphrase, as one stream of any length. argon2id
// (RFC 9106) derives the key, and ChaCha20-Poly1305 seals chunks of 64 KiB by the STREAM
// construction (Hoang et al. 2015): chunks cannot be changed, left out, moved or appended
// unnoticed, and only one is in memory at a time.
//
//	"weft-backup/1\n"  salt 16 B  chunk…
//
// A chunk's nonce is its number (11 bytes, big endian), then one byte that is 1 for the last
// chunk and 0 for the others. The additional data of every chunk are the header.
//
// The FIPS module has neither of the two algorithms. In FIPS mode PBKDF2-HMAC-SHA-256 derives
// the key, and AES-256-GCM seals the chunks:
//
//	"weft-backup/2\n"  salt 16 B  chunk…
//
// A chunk begins with its nonce, which is random. The additional data are the header and the
// 12 bytes that are the nonce in the first form. The second form is read in every mode, the
// first one only outside FIPS mode (ErrNotFIPS).
package seal

import (
	"bufio"
	"crypto/aes"
	"crypto/cipher"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/chacha20poly1305"

	"weft/overlay/fips"
)

const (
	magic     = "weft-backup/1\n" // begins the first form
	magicFIPS = "weft-backup/2\n" // begins the second form, and must have the same length
	saltSize  = 16
	chunkSize = 64 << 10
)

// Parameters of argon2id: deriving a key takes 64 MiB and about 0.1 s, once per backup.
const (
	passes  = 3
	memory  = 64 << 10 // KiB
	threads = 2
)

// ErrPassphrase means that a passphrase does not open a backup: it is the passphrase of
// another backup, or this one was changed or cut off.
var ErrPassphrase = errors.New("the key does not open this backup, or the backup is damaged")

// ErrNotBackup means that a file is not a backup at all.
var ErrNotBackup = errors.New("this is not a backup of a weft-server")

// ErrNotFIPS means that a backup has the first form, which FIPS mode cannot open.
var ErrNotFIPS = errors.New("this backup was made outside FIPS mode (argon2id and ChaCha20-Poly1305), and FIPS mode does not open it; restore it with GODEBUG=fips140=off, then make a new backup in FIPS mode")

// stream is the state that Writer and Reader share.
type stream struct {
	aead   cipher.AEAD
	header []byte
	random bool   // the nonce is random and part of the sealed chunk
	n      uint64 // number of the next chunk
}

// newStream returns the state at the beginning of a stream. magic says which form it has.
func newStream(magic string, passphrase, salt []byte) (*stream, error) {
	s := &stream{header: append([]byte(magic), salt...), random: magic == magicFIPS}
	if !s.random {
		key := argon2.IDKey(passphrase, salt, passes, memory, threads, chacha20poly1305.KeySize)
		var err error
		s.aead, err = chacha20poly1305.New(key)
		return s, err
	}
	key, err := pbkdf2.Key(sha256.New, string(passphrase), salt, fips.Rounds, 32)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	s.aead, err = cipher.NewGCMWithRandomNonce(block)
	return s, err
}

// next returns the nonce and the additional data of the next chunk.
func (s *stream) next(last bool) (nonce, data []byte) {
	place := make([]byte, 12)
	binary.BigEndian.PutUint64(place[3:11], s.n)
	s.n++
	if last {
		place[11] = 1
	}
	if s.random {
		return nil, append(s.header[:len(s.header):len(s.header)], place...)
	}
	return place, s.header
}

// Writer seals the data that are written to it. Without the last chunk, which Close writes,
// a Reader refuses the stream. Only one goroutine at a time may use a Writer.
type Writer struct {
	s   *stream
	w   io.Writer
	buf []byte
}

// NewWriter begins a sealed stream on w.
func NewWriter(w io.Writer, passphrase []byte) (*Writer, error) {
	if fips.Enabled() {
		return newWriter(w, magicFIPS, passphrase)
	}
	return newWriter(w, magic, passphrase)
}

func newWriter(w io.Writer, magic string, passphrase []byte) (*Writer, error) {
	salt := make([]byte, saltSize)
	rand.Read(salt)
	s, err := newStream(magic, passphrase, salt)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(s.header); err != nil {
		return nil, err
	}
	return &Writer{s: s, w: w, buf: make([]byte, 0, chunkSize)}, nil
}

// Write implements io.Writer.
func (w *Writer) Write(b []byte) (n int, err error) {
	for len(b) > 0 {
		if len(w.buf) == chunkSize { // there is more, so this is not the last
			if err := w.flush(false); err != nil {
				return n, err
			}
		}
		k := copy(w.buf[len(w.buf):chunkSize], b)
		w.buf = w.buf[:len(w.buf)+k]
		b, n = b[k:], n+k
	}
	return n, nil
}

func (w *Writer) flush(last bool) error {
	nonce, data := w.s.next(last)
	_, err := w.w.Write(w.s.aead.Seal(nil, nonce, w.buf, data))
	w.buf = w.buf[:0]
	return err
}

// Close writes the last chunk. It does not close the underlying writer.
func (w *Writer) Close() error { return w.flush(true) }

// Reader opens a sealed stream. All data that it returns are authentic, and io.EOF means
// that none are missing. Only one goroutine at a time may use a Reader.
type Reader struct {
	s    *stream
	r    *bufio.Reader
	buf  []byte // sealed
	left []byte // opened, not yet returned by Read
	done bool   // the last chunk was read
}

// NewReader reads the header of the stream in r and derives its key. Errors are ErrNotBackup
// and ErrNotFIPS; a wrong passphrase shows at the first Read, as ErrPassphrase.
func NewReader(r io.Reader, passphrase []byte) (*Reader, error) {
	return newReaderIn(fips.Enabled(), r, passphrase)
}

func newReaderIn(approved bool, r io.Reader, passphrase []byte) (*Reader, error) {
	header := make([]byte, len(magic)+saltSize)
	if _, err := io.ReadFull(r, header); err != nil {
		return nil, ErrNotBackup
	}
	form := string(header[:len(magic)])
	switch {
	case form != magic && form != magicFIPS:
		return nil, ErrNotBackup
	case form == magic && approved:
		return nil, ErrNotFIPS
	}
	s, err := newStream(form, passphrase, header[len(magic):])
	if err != nil {
		return nil, err
	}
	return newReader(r, s), nil
}

// newReader reads what follows the header.
func newReader(r io.Reader, s *stream) *Reader {
	return &Reader{s: s, r: bufio.NewReader(r), buf: make([]byte, chunkSize+s.aead.Overhead())}
}

// Read implements io.Reader.
func (r *Reader) Read(b []byte) (int, error) {
	for len(r.left) == 0 {
		if r.done {
			return 0, io.EOF
		}
		if err := r.next(); err != nil {
			return 0, err
		}
	}
	n := copy(b, r.left)
	r.left = r.left[n:]
	return n, nil
}

func (r *Reader) next() error {
	n, err := io.ReadFull(r.r, r.buf)
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		r.done = true
	case errors.Is(err, io.EOF):
		return fmt.Errorf("cut off: %w", ErrPassphrase)
	case err != nil:
		return err
	default:
		_, err := r.r.Peek(1)
		r.done = errors.Is(err, io.EOF)
	}
	nonce, data := r.s.next(r.done)
	r.left, err = r.s.aead.Open(r.buf[:0], nonce, r.buf[:n], data)
	if err != nil {
		return ErrPassphrase
	}
	return nil
}
