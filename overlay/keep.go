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

// disk saves what a node keeps in its state directory besides its identity, on the
// goroutine of the state.Writer, and reads it when the node comes up.
type disk struct {
	held   *network.Holder
	dir    *directory.Directory
	health *status.Warnings
	// open returns the state directory, nil before Start.
	open func() *state.Dir
	// save is Dir.Save; tests replace it.
	save func(d *state.Dir, file string, b []byte) error
	home atomic.Pointer[string] // Relay.ID of the home
}

// files returns the files to write, in this order. They have no content while the node is
// in no network.
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

// setHome sets the Relay.ID of the home relay for the next write.
func (d *disk) setHome(relayID string) { d.home.Store(&relayID) }

// write writes a file for the state.Writer.
func (d *disk) write(file string, b []byte) error { return d.save(d.open(), file, b) }

// load reads network and directory from the state directory from, unless they are loaded
// already, and sets clock to the saved server time.
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
		if err != nil { // or it is older or newer than the identity
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

// releaseKey returns the content for the file at path, nil to leave it unchanged. The
// first release key that the server names stays pinned, and another one causes a warning,
// because a compromised server must not be able to distribute programs.
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
