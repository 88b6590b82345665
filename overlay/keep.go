package overlay

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync/atomic"

	"weft/overlay/api"
	"weft/overlay/cert"
	"weft/overlay/internal/directory"
	"weft/overlay/internal/network"
	"weft/overlay/internal/state"
	"weft/overlay/release"
	"weft/overlay/status"
)

// disk is what a node keeps in its state directory beside its identity: it writes it, on
// the keeper's goroutine, and reads it when the node comes up.
type disk struct {
	held   *network.Holder
	dir    *directory.Directory
	health *status.Warnings
	// open returns the state directory, nil before Start.
	open func() *state.Dir
	// save is Dir.Save, unless a test says otherwise.
	save func(d *state.Dir, file string, b []byte) error
	home atomic.Pointer[string] // Relay.ID of the home
}

// kept are the files that the keeper writes, in this order. There is nothing to keep
// while the node is in no network.
func (d *disk) files() []state.File {
	in := func(content func(*network.Network) ([]byte, error)) func() ([]byte, error) {
		return func() ([]byte, error) {
			if s, ok := d.held.Get(); ok {
				return content(s)
			}
			return nil, nil
		}
	}
	asJSON := func(v func(*network.Network) any) func() ([]byte, error) {
		return in(func(s *network.Network) ([]byte, error) { return json.Marshal(v(s)) })
	}
	return []state.File{
		{Name: state.CRLFile, What: "the revocation list", Content: in(func(s *network.Network) ([]byte, error) {
			if s.CRL == nil {
				return nil, nil
			}
			return s.CRL.Raw, nil
		})},
		{Name: state.IdentityFile, What: "the certificate", Content: asJSON(func(*network.Network) any { return d.held.Identity() })},
		{Name: state.ConfigFile, What: "the configuration", Content: asJSON(func(s *network.Network) any { return s.Config })},
		{Name: state.ReleaseFile, What: "the key of releases", Content: in(func(s *network.Network) ([]byte, error) {
			return releaseKey(d.open().File(state.ReleaseFile), s.Config.ReleaseKey, d.health)
		})},
		{Name: state.DirectoryFile, What: "the list of devices", Content: asJSON(func(*network.Network) any { return d.dir.Saved() })},
		{Name: state.NamesFile, What: "the names", Content: asJSON(func(*network.Network) any { return d.dir.Pins() })},
		{Name: state.HomeFile, What: "the home relay", Content: asJSON(func(*network.Network) any { return *d.home.Load() })},
	}
}

// setHome notes which relay is the home, by its Relay.ID, for the next write.
func (d *disk) setHome(relayID string) { d.home.Store(&relayID) }

// write is what the keeper writes with.
func (d *disk) write(file string, b []byte) error { return d.save(d.open(), file, b) }

// load fills what is held of the network and the directory from what was kept in from,
// where they are not there already. clock is told what the server's time was.
func (d *disk) load(from *state.Dir, clock *cert.Clock) (*network.Network, error) {
	id := d.held.Identity()
	s, ok := d.held.Get()
	if !ok {
		crl := from.Load(state.CRLFile)
		var config api.Config
		err := errors.New("no usable configuration")
		if from.LoadCache(state.ConfigFile, &config) {
			s, err = network.New(id, &config, crl)
		}
		if err != nil { // or one that is older or newer than the identity
			s, err = network.New(id, id.BareConfig(), crl)
		}
		if err != nil {
			return nil, fmt.Errorf("state directory %s: %w", from.Path(), err)
		}
		pinned := map[string]cert.NodeID{}
		from.LoadCache(state.NamesFile, &pinned)
		d.dir.Pin(pinned)
		clock.Floor(id.ServerTime)
		d.held.Join(id, s)
	}
	var saved directory.Saved
	if from.LoadCache(state.DirectoryFile, &saved) && d.dir.Version().IsZero() {
		d.dir.Restore(saved, s.VerifyListed)
	}
	return s, nil
}

// releaseKey returns what is to be in the file at path, nil if it stays: the first key
// of releases that the server names is kept, and another one warned of, since a server
// in wrong hands must not be able to hand out programs.
func releaseKey(path string, key []byte, health *status.Warnings) ([]byte, error) {
	if len(key) != ed25519.PublicKeySize {
		return nil, nil
	}
	named := release.EncodeKey(key)
	switch pinned, err := os.ReadFile(path); {
	case errors.Is(err, fs.ErrNotExist):
		health.Clear(status.CodeReleaseKeyChanged)
		return named, nil
	case err != nil:
		return nil, fmt.Errorf("read the release key: %w", err)
	case bytes.Equal(pinned, named):
		health.Clear(status.CodeReleaseKeyChanged)
	default:
		health.Set(status.CodeReleaseKeyChanged, "the server names another release key than the one this device has trusted since it joined; if the network's owner did that, remove "+path+", if not, the server is in wrong hands")
	}
	return nil, nil
}
