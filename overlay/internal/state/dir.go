// Package state is the state directory of a node: files that survive the process, and a
// Writer that saves them.
//
// A Dir reads and replaces whole files. A Writer saves files in a goroutine of its own:
// it is told which files have changed, and asks for their content when it writes them.
// Neither knows anything of nodes or networks, except the format of node.json.
package state

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"

	"weft/overlay/filelock"
	"weft/overlay/internal/network"
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
	IdentityFile  = "node.json"
	ConfigFile    = "config.json"
	CRLFile       = "crl.der"
	DirectoryFile = "directory.json"
	NamesFile     = "names.json"
	HomeFile      = "home.json"
	FiltersFile   = "filters.json"
	ReleaseFile   = release.KeyName
)

// Dir is an open, locked state directory. Its methods may be called from
// any goroutine; writers of the same file must take turns.
type Dir struct {
	path     string
	lock     *os.File
	readOnly bool
}

// ErrLocked is wrapped by errors of Open when another daemon uses the directory.
var ErrLocked = errors.New("another weft runs on it; see: weft status; for a second one choose another with --state")

// Open makes the directory if necessary and takes its lock. The error wraps ErrLocked if
// another daemon has it.
func Open(path string) (*Dir, error) {
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
		// The file system is read-only: use what is there, but still lock, for one daemon
		// at a time.
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
			err = ErrLocked
		}
		return nil, fmt.Errorf("lock state directory %s: %w", path, err)
	}
	// Temporary files left by a crash. We have the lock, so nobody is writing them.
	if left, err := filepath.Glob(filepath.Join(path, ".*.tmp")); err == nil {
		for _, name := range left {
			os.Remove(name)
		}
	}
	return &Dir{path: path, lock: f, readOnly: readOnly}, nil
}

// Path returns the path of the directory.
func (d *Dir) Path() string { return d.path }

// File returns the path of one of its files.
func (d *Dir) File(name string) string { return filepath.Join(d.path, name) }

// ReadOnly reports whether the directory was not writable when it was opened.
func (d *Dir) ReadOnly() bool { return d.readOnly }

// Close releases the lock.
func (d *Dir) Close() error { return filelock.Release(d.lock) }

// LoadIdentity returns nil without an error if there is none yet. A damaged file is an
// error, so that the node never replaces its identity.
func (d *Dir) LoadIdentity() (*network.Identity, error) {
	file := d.File(IdentityFile)
	b, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read identity: %w", err)
	}
	id, err := network.ParseIdentity(b)
	if other := (*network.SchemaError)(nil); errors.As(err, &other) {
		return nil, fmt.Errorf("identity file %s has %w", file, err)
	}
	if err != nil {
		return nil, fmt.Errorf("identity file %s is damaged (%w): restore it from a backup, or move it away to join as a new device", file, err)
	}
	return id, nil
}

// SaveIdentity saves node.json.
func (d *Dir) SaveIdentity(id *network.Identity) error {
	return d.SaveJSON(Content{IdentityFile, id})
}

// Load returns the content of a file, nil if it cannot be read.
func (d *Dir) Load(name string) []byte {
	b, _ := os.ReadFile(d.File(name))
	return b
}

// LoadCache reads a JSON cache file into v and reports whether it could. A damaged cache
// is the same as none.
func (d *Dir) LoadCache(name string, v any) bool {
	b, err := os.ReadFile(d.File(name))
	return err == nil && json.Unmarshal(b, v) == nil
}

// LoadHome returns the Relay.ID of the last home relay, "" if there is none.
func (d *Dir) LoadHome() (relayID string) {
	d.LoadCache(HomeFile, &relayID)
	return relayID
}

// Content is what a file is to hold, as JSON.
type Content struct {
	File string
	JSON any
}

// SaveJSON saves files in this order: after a crash some of the first are new and the rest
// old. All are written and flushed at the same time, which takes about as long as for one.
func (d *Dir) SaveJSON(files ...Content) error {
	all := make([]file, len(files))
	for i, f := range files {
		b, err := json.Marshal(f.JSON)
		if err != nil {
			return fmt.Errorf("save %s: %w", f.File, err)
		}
		all[i] = file{f.File, b}
	}
	return d.save(all)
}

// Save replaces a file as a whole, so that it survives kill -9 and power cuts.
func (d *Dir) Save(name string, b []byte) error { return d.save([]file{{name, b}}) }

// file is a file to save.
type file struct {
	name string
	b    []byte
}

func (d *Dir) save(files []file) error {
	tmps, errs := make([]string, len(files)), make([]error, len(files))
	defer func() {
		for _, tmp := range tmps {
			if tmp != "" {
				os.Remove(tmp) // no-op after the rename
			}
		}
	}()
	var wg sync.WaitGroup
	for i, f := range files[1:] {
		wg.Go(func() { tmps[i+1], errs[i+1] = d.writeTemp(f) })
	}
	tmps[0], errs[0] = d.writeTemp(files[0])
	wg.Wait()
	for i, err := range errs {
		if err != nil {
			return fmt.Errorf("save %s: %w", files[i].name, err)
		}
	}
	for i, f := range files {
		if err := os.Rename(tmps[i], d.File(f.name)); err != nil {
			return fmt.Errorf("save %s: %w", f.name, err)
		}
	}
	if err := d.sync(); err != nil {
		return fmt.Errorf("save %s: %w", files[0].name, err)
	}
	return nil
}

// writeTemp writes a temporary file and flushes it. It returns its path, even with an error,
// "" if there is none.
func (d *Dir) writeTemp(f file) (path string, err error) {
	tmp, err := os.CreateTemp(d.path, "."+f.name+".*.tmp")
	if err != nil {
		return "", err
	}
	_, err = tmp.Write(f.b)
	if err == nil {
		err = tmp.Sync()
	}
	if cerr := tmp.Close(); err == nil {
		err = cerr
	}
	return tmp.Name(), err
}

// sync flushes the directory, and with it the renames.
func (d *Dir) sync() error {
	if runtime.GOOS == "windows" {
		return nil // Windows cannot flush directories, and need not
	}
	dir, err := os.Open(d.path)
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}

// Remove removes a file.
func (d *Dir) Remove(name string) error { return os.Remove(d.File(name)) }

// Wipe removes everything but the lock.
func (d *Dir) Wipe() error {
	var errs []error
	for _, name := range []string{ConfigFile, CRLFile, DirectoryFile, NamesFile, HomeFile, FiltersFile, ReleaseFile, IdentityFile} {
		if err := d.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
