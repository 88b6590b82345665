// Package seal encrypts a backup with a passphrase, as one stream of any
// length: argon2id (RFC 9106) makes the key, ChaCha20-Poly1305 seals chunks of
// 64 KiB by the STREAM construction (Hoang et al. 2015), so that no chunk can be
// changed, left out, moved or appended, and nothing is held in memory as a
// whole.
//
//	"weft-backup/1\n"  salt 16 B  chunk…
//
// A chunk's nonce is its number (11 bytes, big endian) and 1 for the last, 0
// for the others. The header is the additional data of every chunk.
//
// In FIPS mode, whose module has neither, the key is made by PBKDF2-HMAC-SHA-256 and
// chunks are sealed with AES-256-GCM:
//
//	"weft-backup/2\n"  salt 16 B  chunk…
//
// The nonce of a chunk is random and goes before it. Its number and whether it is the
// last, as above, follow the header in the additional data. The second form is read in
// every mode, the first one outside FIPS mode only (ErrNotFIPS).
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

// The two forms, by what they begin with.
const (
	magic     = "weft-backup/1\n"
	magicFIPS = "weft-backup/2\n" // of the same length
	saltSize  = 16
	chunkSize = 64 << 10
)

// argon2id: 64 MB and about 0.1 s, once per backup.
const (
	passes  = 3
	memory  = 64 << 10 // KiB
	threads = 2
)

// ErrPassphrase says that a passphrase does not open a backup: it is another
// one's, or the backup was changed.
var ErrPassphrase = errors.New("the key does not open this backup, or the backup is damaged")

// ErrNotBackup says that a file is no backup at all.
var ErrNotBackup = errors.New("this is not a backup of a weft-server")

// ErrNotFIPS refuses a backup in the first form in FIPS mode.
var ErrNotFIPS = errors.New("this backup was made outside FIPS mode (argon2id and ChaCha20-Poly1305), and FIPS mode does not open it; restore it with GODEBUG=fips140=off, then make a new backup in FIPS mode")

// stream is one direction of a sealed stream.
type stream struct {
	aead   cipher.AEAD
	header []byte
	random bool // the nonce is random and part of the sealed chunk
	n      uint64
}

// newStream makes a stream of the form that magic names.
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

// Writer seals what is written to it. Close writes the last chunk; without it
// the stream does not open.
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

// Close ends the stream. It does not close the underlying writer.
func (w *Writer) Close() error { return w.flush(true) }

// Reader opens a sealed stream. What it returns is genuine, and io.EOF says
// that it is complete.
type Reader struct {
	s    *stream
	r    *bufio.Reader
	buf  []byte // sealed
	left []byte // opened, not yet read
	done bool
}

// NewReader begins to open the stream in r.
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
