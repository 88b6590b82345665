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
package seal

import (
	"bufio"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/chacha20poly1305"
)

const (
	magic     = "weft-backup/1\n"
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

// stream is one direction of a sealed stream.
type stream struct {
	aead   cipher.AEAD
	header []byte
	n      uint64
}

func newStream(passphrase, salt []byte) (*stream, error) {
	key := argon2.IDKey(passphrase, salt, passes, memory, threads, chacha20poly1305.KeySize)
	aead, err := chacha20poly1305.New(key)
	return &stream{aead: aead, header: append([]byte(magic), salt...)}, err
}

func (s *stream) nonce(last bool) []byte {
	b := make([]byte, chacha20poly1305.NonceSize)
	binary.BigEndian.PutUint64(b[3:11], s.n)
	s.n++
	if last {
		b[11] = 1
	}
	return b
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
	salt := make([]byte, saltSize)
	rand.Read(salt)
	s, err := newStream(passphrase, salt)
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
	_, err := w.w.Write(w.s.aead.Seal(nil, w.s.nonce(last), w.buf, w.s.header))
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
	header := make([]byte, len(magic)+saltSize)
	if _, err := io.ReadFull(r, header); err != nil || string(header[:len(magic)]) != magic {
		return nil, ErrNotBackup
	}
	s, err := newStream(passphrase, header[len(magic):])
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
	r.left, err = r.s.aead.Open(r.buf[:0], r.s.nonce(r.done), r.buf[:n], r.s.header)
	if err != nil {
		return ErrPassphrase
	}
	return nil
}
