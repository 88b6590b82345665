package osdns

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// tempPrefix starts the names of temporary files.
const tempPrefix = ".weft-"

// readFile reads a small file; the result is nil for a missing file or a dangling link.
func readFile(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|nonblock, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case isLoop(err): // a link to itself is dangling, too
		return nil, nil
	case err != nil:
		return nil, err
	}
	defer f.Close()
	if fi, err := f.Stat(); err != nil || !fi.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a file", path)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(b) > maxFile {
		err = fmt.Errorf("%s has more than %d bytes", path, maxFile)
	}
	if b == nil {
		b = []byte{}
	}
	return b, err
}

// replaceFile replaces path atomically by a file with this content. A file that cannot
// be replaced, because it is a mount point or its directory is read-only, is
// overwritten in place.
func replaceFile(path string, content []byte, mode fs.FileMode) error {
	err := writeNew(path, content, mode, path)
	if err == nil {
		return nil
	}
	fi, lerr := os.Lstat(path)
	if lerr != nil || !fi.Mode().IsRegular() {
		return err
	}
	if over := writeOver(path, content); over != nil {
		return err
	}
	return nil
}

// writeNew writes a file beside path and renames it to path. It copies the security
// label of the file like, if there is one.
func writeNew(path string, content []byte, mode fs.FileMode, like string) error {
	f, err := os.CreateTemp(filepath.Dir(path), tempPrefix+"*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // fails after the rename
	_, err = f.Write(content)
	if err == nil {
		err = f.Chmod(mode)
	}
	if err == nil {
		copyLabel(like, f.Name())
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err == nil {
		syncDir(filepath.Dir(path))
	}
	return err
}

// writeOver overwrites an existing file. The file is never empty in between.
func writeOver(path string, content []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|nonblock, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(content, 0)
	if err == nil {
		err = f.Truncate(int64(len(content)))
	}
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

// symlinkNew atomically makes path a link to target.
func symlinkNew(target, path string) error {
	// A unique name: there is no CreateTemp for links.
	tmp := filepath.Join(filepath.Dir(path), tempPrefix+filepath.Base(path))
	os.Remove(tmp)
	if err := os.Symlink(target, tmp); err != nil {
		return err
	}
	if err := os.Rename(tmp, path); err != nil {
		os.Remove(tmp)
		return err
	}
	syncDir(filepath.Dir(path))
	return nil
}

func syncDir(dir string) {
	if d, err := os.Open(dir); err == nil {
		d.Sync()
		d.Close()
	}
}
