// Package release lists and signs the files of a weft release: a manifest with the
// SHA-256 of every file, signed with the Ed25519 key of the network's owner. The key is
// never on the server. Its public half is in the network's configuration, and each node
// pins it when it joins, so that a stolen server cannot hand out another program.
//
// The files of a release directory:
//
//	manifest.json      a Manifest
//	manifest.json.sig  its signature, 64 bytes in standard base64
//	release.pub        the public key, 32 bytes in standard base64
//	...                the files that the manifest names
//
// Not for embedders: weft uses it to install and check itself.
package release

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// The names of a release's own files.
const (
	ManifestName  = "manifest.json"
	SignatureName = "manifest.json.sig"
	KeyName       = "release.pub"
)

// Schema is the value of Manifest.Schema. Any other value is refused.
const Schema = "weft-release/1"

// MaxManifest bounds a manifest in bytes, maxFiles the number of its files.
const (
	MaxManifest = 256 << 10
	maxFiles    = 1000
)

// MaxFile bounds each file of a release in bytes.
const MaxFile = 256 << 20

// ErrSignature means that a manifest is not signed by the given key.
var ErrSignature = errors.New("the manifest is not signed by the release key")

// Manifest lists the files of a release.
type Manifest struct {
	Schema  string    `json:"schema"`
	Version string    `json:"version"`
	Commit  string    `json:"commit"` // hex, of the source
	Time    time.Time `json:"time"`   // of the commit
	Files   []File    `json:"files"`
}

// File is one file of a release. Architectures have Go's names, with "armv6"
// and "armv7" for the two kinds of 32-bit ARM.
type File struct {
	Name    string `json:"name"`    // in the release directory, no slashes
	Program string `json:"program"` // "weft" or "weft-server"
	OS      string `json:"os"`      // GOOS
	Arch    string `json:"arch"`
	Kind    string `json:"kind"` // "binary", "deb", "rpm", "apk", "ipk", "sbom" or "notices"
	Size    int64  `json:"size"` // bytes
	SHA256  string `json:"sha256"`
}

// Sign returns the content of the signature file of a manifest.
func Sign(key ed25519.PrivateKey, manifest []byte) []byte {
	return encode(ed25519.Sign(key, signed(manifest)))
}

// signed is the signed message. Its prefix makes sure that a signature by this key for
// another purpose is not valid here.
func signed(manifest []byte) []byte { return append([]byte("weft release manifest\n"), manifest...) }

// EncodeKey returns the file content of a public key.
func EncodeKey(pub ed25519.PublicKey) []byte { return encode(pub) }

func encode(b []byte) []byte { return append([]byte(base64.StdEncoding.EncodeToString(b)), '\n') }

// ParseKey parses the file content of a public key.
func ParseKey(b []byte) (ed25519.PublicKey, error) {
	raw, err := decode(b, ed25519.PublicKeySize)
	if err != nil {
		return nil, fmt.Errorf("release key: %w", err)
	}
	return raw, nil
}

func decode(b []byte, size int) ([]byte, error) {
	raw, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(b[:min(len(b), 256)])))
	if err == nil && len(raw) != size {
		err = fmt.Errorf("%d bytes, want %d", len(raw), size)
	}
	return raw, err
}

// Verify checks the signature of a manifest and parses it.
func Verify(key ed25519.PublicKey, manifest, signature []byte) (*Manifest, error) {
	sig, err := decode(signature, ed25519.SignatureSize)
	if err != nil || len(key) != ed25519.PublicKeySize || !ed25519.Verify(key, signed(manifest), sig) {
		return nil, ErrSignature
	}
	return Parse(manifest)
}

// Parse parses a manifest without checking its signature.
func Parse(b []byte) (*Manifest, error) {
	if len(b) > MaxManifest {
		return nil, fmt.Errorf("manifest of %d bytes is too long", len(b))
	}
	var m Manifest
	if err := json.Unmarshal(b, &m); err != nil {
		return nil, fmt.Errorf("parse manifest: %w", err)
	}
	if m.Schema != Schema {
		return nil, fmt.Errorf("manifest of schema %q, want %s: this program is older than the release", m.Schema, Schema)
	}
	if len(m.Files) > maxFiles {
		return nil, fmt.Errorf("manifest with %d files is too long", len(m.Files))
	}
	for _, f := range m.Files {
		sum, err := hex.DecodeString(f.SHA256)
		if !filepath.IsLocal(f.Name) || strings.ContainsAny(f.Name, `/\`) || err != nil || len(sum) != sha256.Size || f.Size < 0 || f.Size > MaxFile {
			return nil, fmt.Errorf("manifest: file %q has an invalid name, size or SHA-256", f.Name)
		}
	}
	return &m, nil
}

// Names reports whether the manifest lists a binary of a program with this content.
func (m *Manifest) Names(program string, sha256sum string) bool {
	for _, f := range m.Files {
		if f.Program == program && f.Kind == "binary" && f.SHA256 == sha256sum {
			return true
		}
	}
	return false
}

// Sum returns the size and SHA-256 of a file.
func Sum(path string) (size int64, sum string, err error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, "", err
	}
	defer f.Close()
	h := sha256.New()
	if size, err = io.Copy(h, io.LimitReader(f, MaxFile+1)); err != nil {
		return 0, "", err
	}
	if size > MaxFile {
		return 0, "", fmt.Errorf("%s is too long for a file of a release", path)
	}
	return size, hex.EncodeToString(h.Sum(nil)), nil
}

// Dir is a release on disk whose signature was checked by Open.
type Dir struct {
	*Manifest
	Key ed25519.PublicKey

	root *os.Root
}

// Open reads a release directory and checks its manifest against the key beside it.
// Only a node that pinned the key can tell whether it is the right one. The error wraps
// fs.ErrNotExist if there is no release. The caller must Close the Dir.
func Open(path string) (_ *Dir, err error) {
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, fmt.Errorf("open releases: %w", err)
	}
	defer func() {
		if err != nil {
			root.Close()
		}
	}()
	content := map[string][]byte{}
	for _, name := range []string{ManifestName, SignatureName, KeyName} {
		f, err := root.Open(name)
		if err != nil {
			return nil, fmt.Errorf("open releases: %w", err)
		}
		var b bytes.Buffer
		_, err = b.ReadFrom(io.LimitReader(f, MaxManifest+1))
		f.Close()
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", name, err)
		}
		content[name] = b.Bytes()
	}
	key, err := ParseKey(content[KeyName])
	if err != nil {
		return nil, err
	}
	m, err := Verify(key, content[ManifestName], content[SignatureName])
	if err != nil {
		return nil, fmt.Errorf("releases in %s: %w; run scripts/release again", path, err)
	}
	return &Dir{Manifest: m, Key: key, root: root}, nil
}

// OpenFile opens a file that the manifest lists.
func (d *Dir) OpenFile(f File) (*os.File, error) { return d.root.Open(f.Name) }

// Read returns one of the release's own files.
func (d *Dir) Read(name string) ([]byte, error) { return d.root.ReadFile(name) }

// Close closes the directory.
func (d *Dir) Close() error { return d.root.Close() }
