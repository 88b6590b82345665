package overlay

import (
	"crypto/ecdsa"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"weft/overlay/cert"
	"weft/overlay/filelock"
	"weft/overlay/release"
)

// The files of a state directory (mode 0700, files 0600):
//
//	lock            held by the running daemon (flock: gone with the process)
//	node.json       identity: losing it means a new device, so it is never
//	                made anew while a file is there, however damaged
//	config.json     the last configuration, for when the server is away
//	crl.der         the last revocation list
//	directory.json  the last directory, with certificates: a cache
//	names.json      name -> NodeID at first contact: a cache that warns
//	home.json       the home relay: a cache
//	filters.json    what was open to which peer, with a kernel interface
//	release.pub     the key of releases, pinned when it was first seen
//
// Every file is replaced as a whole: temporary file, fsync, rename, fsync of
// the directory. kill -9 at any moment leaves the old or the new one.
const (
	identityFile  = "node.json"
	configFile    = "config.json"
	crlFile       = "crl.der"
	directoryFile = "directory.json"
	namesFile     = "names.json"
	homeFile      = "home.json"
	filtersFile   = "filters.json"
	releaseFile   = release.KeyName
)

// identity is node.json: who this node is and whom it trusts.
type identity struct {
	Schema      string         `json:"schema"`
	Key         string         `json:"key"` // PEM: secret
	Network     cert.NetworkID `json:"network"`
	ServerPins  []cert.Pin     `json:"server_pins"`
	URLs        []string       `json:"server_urls"`
	Certificate []byte         `json:"certificate,omitempty"` // DER; absent until joined
	NetworkCAs  [][]byte       `json:"network_cas,omitempty"` // DER
	ServerTime  time.Time      `json:"server_time"`           // when the server was heard last, to the hour: floor of weft time

	key *ecdsa.PrivateKey
}

const identitySchema = "node/1"

// joined reports whether the server has certified this identity.
func (id *identity) joined() bool { return id != nil && len(id.Certificate) > 0 }

// stateDir is an open, locked state directory. Its methods may be called from
// any goroutine; writers of the same file must take turns.
type stateDir struct {
	path string
	lock *os.File

	readOnly bool // when it was opened
}

// errLocked is returned by openState when another daemon holds the directory.
var errLocked = errors.New("another weft runs on it")

// openState makes the directory when needed and takes its lock.
func openState(path string) (*stateDir, error) {
	if path == "" {
		return nil, errors.New("no state directory given")
	}
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("open state directory: %w", err)
	}
	file := filepath.Join(path, "lock")
	f, err := os.OpenFile(file, os.O_CREATE|os.O_RDWR, 0o600)
	readOnly := errors.Is(err, syscall.EROFS)
	if readOnly {
		// A card that is mounted read-only, or has become so: what is there
		// will do, and one daemon each all the same.
		if f, err = os.Open(file); errors.Is(err, fs.ErrNotExist) {
			f, err = os.Open(path)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("open state directory: %w", err)
	}
	if err := filelock.Try(f); err != nil {
		f.Close()
		if errors.Is(err, filelock.ErrLocked) {
			err = errLocked
		}
		return nil, fmt.Errorf("lock state directory %s: %w", path, err)
	}
	// What a crash left half written; the lock says that nobody is at it.
	if left, err := filepath.Glob(filepath.Join(path, ".*.tmp")); err == nil {
		for _, name := range left {
			os.Remove(name)
		}
	}
	return &stateDir{path: path, lock: f, readOnly: readOnly}, nil
}

// close gives the lock up.
func (s *stateDir) close() error { return s.lock.Close() }

// loadIdentity returns nil without error when there is none yet. A damaged
// file is an error, never a reason to become somebody else.
func (s *stateDir) loadIdentity() (*identity, error) {
	file := filepath.Join(s.path, identityFile)
	b, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read identity: %w", err)
	}
	bad := func(err error) error {
		return fmt.Errorf("identity file %s is damaged (%w): restore it from a backup, or move it away to join as a new device", file, err)
	}
	var id identity
	if err := json.Unmarshal(b, &id); err != nil {
		return nil, bad(err)
	}
	if id.Schema != identitySchema {
		return nil, fmt.Errorf("identity file %s has schema %q, this weft knows %q: use the weft that wrote it, or a newer one", file, id.Schema, identitySchema)
	}
	if id.key, err = cert.ParseKey([]byte(id.Key)); err != nil {
		return nil, bad(err)
	}
	if len(id.ServerPins) == 0 || len(id.URLs) == 0 || id.Network.IsZero() {
		return nil, bad(errors.New("server or network is missing"))
	}
	if id.joined() {
		n, err := cert.ParseNode(id.Network, id.Certificate)
		if err != nil {
			return nil, bad(err)
		}
		if !id.key.PublicKey.Equal(n.Leaf.PublicKey) {
			return nil, bad(errors.New("key and certificate do not belong together"))
		}
	}
	return &id, nil
}

func (s *stateDir) saveIdentity(id *identity) error { return s.saveJSON(identityFile, id) }

// tlsCertificate is what the node shows: its node certificate, or, before it
// has joined, a self-signed one over the same key.
func (id *identity) tlsCertificate() (*tls.Certificate, error) {
	if !id.joined() {
		c, err := cert.SelfSigned(id.key)
		return &c, err
	}
	return &tls.Certificate{Certificate: [][]byte{id.Certificate}, PrivateKey: id.key}, nil
}

// loadCache reads a JSON cache file into v and reports whether it was there
// and whole. A damaged cache is as good as none.
func (s *stateDir) loadCache(name string, v any) bool {
	b, err := os.ReadFile(filepath.Join(s.path, name))
	return err == nil && json.Unmarshal(b, v) == nil
}

// loadHome returns the Relay.ID of the last home, "" when there is none.
func (s *stateDir) loadHome() (relayID string) {
	s.loadCache(homeFile, &relayID)
	return relayID
}

func (s *stateDir) saveJSON(name string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("save %s: %w", name, err)
	}
	return s.save(name, b)
}

// save replaces a file as a whole, so that it survives kill -9 and power cuts.
func (s *stateDir) save(name string, b []byte) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("save %s: %w", name, err)
		}
	}()
	tmp, err := os.CreateTemp(s.path, "."+name+".*.tmp")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name()) // no-op after the rename
	_, err = tmp.Write(b)
	if err == nil {
		err = tmp.Sync()
	}
	if cerr := tmp.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	if err := os.Rename(tmp.Name(), filepath.Join(s.path, name)); err != nil {
		return err
	}
	if runtime.GOOS == "windows" {
		return nil // directories cannot be flushed there, and need not be
	}
	dir, err := os.Open(s.path)
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}

// wipe removes everything but the lock.
func (s *stateDir) wipe() error {
	var errs []error
	for _, name := range []string{configFile, crlFile, directoryFile, namesFile, homeFile, filtersFile, releaseFile, identityFile} {
		if err := os.Remove(filepath.Join(s.path, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
