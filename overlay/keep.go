package overlay

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"weft/overlay/internal/network"
	"weft/overlay/internal/state"
	"weft/overlay/release"
	"weft/overlay/status"
)

// kept are the files that the keeper writes, in this order. There is nothing to keep
// while the node is in no network.
func (n *Node) kept() []state.Kept {
	in := func(content func(*network.Network) ([]byte, error)) func() ([]byte, error) {
		return func() ([]byte, error) {
			if s, ok := n.held.Get(); ok {
				return content(s)
			}
			return nil, nil
		}
	}
	asJSON := func(v func(*network.Network) any) func() ([]byte, error) {
		return in(func(s *network.Network) ([]byte, error) { return json.Marshal(v(s)) })
	}
	return []state.Kept{
		{File: state.CRLFile, What: "the revocation list", Content: in(func(s *network.Network) ([]byte, error) {
			if s.CRL == nil {
				return nil, nil
			}
			return s.CRL.Raw, nil
		})},
		{File: state.IdentityFile, What: "the certificate", Content: asJSON(func(*network.Network) any { return n.held.Identity() })},
		{File: state.ConfigFile, What: "the configuration", Content: asJSON(func(s *network.Network) any { return s.Config })},
		{File: state.ReleaseFile, What: "the key of releases", Content: in(func(s *network.Network) ([]byte, error) {
			return releaseKey(n.stateDir().File(state.ReleaseFile), s.Config.ReleaseKey, &n.health)
		})},
		{File: state.DirectoryFile, What: "the list of devices", Content: asJSON(func(*network.Network) any { return n.dir.Saved() })},
		{File: state.NamesFile, What: "the names", Content: asJSON(func(*network.Network) any { return n.dir.Pins() })},
		{File: state.HomeFile, What: "the home relay", Content: asJSON(func(*network.Network) any { return *n.homeAt.Load() })},
	}
}

// stateDir is the open state directory, nil before Start.
func (n *Node) stateDir() *state.Dir {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.state
}

// write is what the keeper writes with.
func (n *Node) write(file string, b []byte) error { return n.save(n.stateDir(), file, b) }

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
