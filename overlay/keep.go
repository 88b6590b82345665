package overlay

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"weft/overlay/release"
	"weft/overlay/status"
)

// What a node learns holds at once, and is written to the state directory after
// that, by a goroutine of its own: a disk that is slow, full or read-only must not
// put off that a deleted device is dropped or a right is withdrawn, nor hold up
// the tunnels. A power cut in between costs another fetch. Only a join is the
// other way round (join.go): its key and certificate are on disk before anybody
// goes by them.

// keeper writes files of the state directory. Its methods may be called from any
// goroutine.
type keeper struct {
	wake chan struct{} // capacity 1

	// disk is held while files are written or removed. Taken before Node.mu.
	disk sync.Mutex

	mu sync.Mutex
	// mu guards the following.
	due  map[string]bool // files that are to be written
	home string          // what is to be in homeFile
}

// keptFiles are the files that keep writes, in this order.
var keptFiles = [...]struct{ file, what string }{
	{crlFile, "the revocation list"},
	{identityFile, "the certificate"},
	{configFile, "the configuration"},
	{releaseFile, "the key of releases"},
	{directoryFile, "the list of devices"},
	{namesFile, "the names"},
	{homeFile, "the home relay"},
}

func newKeeper() *keeper {
	return &keeper{wake: make(chan struct{}, 1), due: map[string]bool{}}
}

// keep has a file written with what it is to hold by then. It does not wait.
func (n *Node) keep(file string) {
	k := n.keeper
	k.mu.Lock()
	k.due[file] = true
	k.mu.Unlock()
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// keepHome is keep for the relay that is the home now.
func (n *Node) keepHome(relayID string) {
	n.keeper.mu.Lock()
	n.keeper.home = relayID
	n.keeper.mu.Unlock()
	n.keep(homeFile)
}

// left forgets what was to be written of a network that the node has left. It is
// called with disk held.
func (k *keeper) left() {
	k.mu.Lock()
	defer k.mu.Unlock()
	clear(k.due)
	k.home = ""
}

// runKeeper is the goroutine that writes, until ctx ends. What is left then is
// for keepNow.
func (n *Node) runKeeper(ctx context.Context) {
	var wait time.Duration
	for {
		select {
		case <-n.keeper.wake:
		case <-ctx.Done():
			return
		}
		if ctx.Err() != nil {
			return
		}
		for n.keepNow() != nil {
			wait = min(max(2*wait, time.Second), time.Minute)
			if !sleep(ctx, jitter(wait)) {
				return
			}
		}
		wait = 0
	}
}

// keepNow writes what is due. What fails stays due, and health says so.
func (n *Node) keepNow() error {
	k := n.keeper
	var failed error
	var lost []string
	for _, f := range keptFiles {
		k.mu.Lock()
		due := k.due[f.file]
		delete(k.due, f.file)
		k.mu.Unlock()
		if !due {
			continue
		}
		if err := n.write(f.file); err != nil {
			k.mu.Lock()
			k.due[f.file] = true
			k.mu.Unlock()
			failed, lost = err, append(lost, f.what)
		}
	}
	if failed == nil {
		n.health.Clear(status.CodeStateDirectory)
		return nil
	}
	if !n.health.Has(status.CodeStateDirectory) { // it is tried again and again
		n.log.Error("keep what was learnt", "err", failed)
	}
	n.health.Set(status.CodeStateDirectory, fmt.Sprintf("%v; until that is mended, a restart goes back to an older state of %s", failed, strings.Join(lost, ", ")))
	return failed
}

// write writes one file, unless the node is in no network: then there is nothing
// to keep.
func (n *Node) write(file string) error {
	n.keeper.disk.Lock()
	defer n.keeper.disk.Unlock()
	n.mu.Lock()
	s, ok := n.snap.get()
	id, state := n.id, n.state
	n.mu.Unlock()
	if !ok || state == nil {
		return nil
	}
	var b []byte
	var err error
	switch file {
	case crlFile:
		if s.crl == nil {
			return nil
		}
		b = s.crl.Raw
	case identityFile:
		b, err = json.Marshal(id)
	case configFile:
		b, err = json.Marshal(s.config)
	case releaseFile:
		if b, err = n.releaseKey(state, s.config.ReleaseKey); b == nil {
			return err
		}
	case directoryFile:
		b, err = json.Marshal(n.dir.Saved())
	case namesFile:
		b, err = json.Marshal(n.dir.Pins())
	case homeFile:
		n.keeper.mu.Lock()
		home := n.keeper.home
		n.keeper.mu.Unlock()
		b, err = json.Marshal(home)
	}
	if err != nil {
		return fmt.Errorf("save %s: %w", file, err)
	}
	return n.save(state, file, b)
}

// releaseKey returns what is to be in releaseFile, nil if it stays: the first key of
// releases that the server names is kept, and another one warned of, since a server
// in wrong hands must not be able to hand out programs.
func (n *Node) releaseKey(state *stateDir, key []byte) ([]byte, error) {
	if len(key) != ed25519.PublicKeySize {
		return nil, nil
	}
	path, named := filepath.Join(state.path, releaseFile), release.EncodeKey(key)
	switch pinned, err := os.ReadFile(path); {
	case errors.Is(err, fs.ErrNotExist):
		n.health.Clear(status.CodeReleaseKeyChanged)
		return named, nil
	case err != nil:
		return nil, fmt.Errorf("read the release key: %w", err)
	case bytes.Equal(pinned, named):
		n.health.Clear(status.CodeReleaseKeyChanged)
	default:
		n.health.Set(status.CodeReleaseKeyChanged, "the server names another release key than the one this device has trusted since it joined; if the network's owner did that, remove "+path+", if not, the server is in wrong hands")
	}
	return nil, nil
}
