// Package datadir locks the data directory of a server or of a standalone relay, so that only one
// process uses it.
package datadir

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"weft/overlay/filelock"
)

// ErrLocked means that another process has locked the data directory.
var ErrLocked = errors.New("another weft-server uses this data directory")

// LockFile is the name of the file in a data directory that is locked.
const LockFile = "lock"

// Lock locks the data directory dir. If another process has locked it, Lock waits up to wait for
// that process to end, and then returns ErrLocked. The caller releases the lock with
// filelock.Release; it also ends with the process.
func Lock(ctx context.Context, dir string, wait time.Duration) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, LockFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock data directory: %w", err)
	}
	deadline := time.Now().Add(wait)
	for {
		err := filelock.Try(f)
		if err == nil {
			return f, nil
		}
		if !errors.Is(err, filelock.ErrLocked) || time.Now().After(deadline) || ctx.Err() != nil {
			f.Close()
			if errors.Is(err, filelock.ErrLocked) {
				err = ErrLocked
			}
			return nil, fmt.Errorf("lock %s: %w", dir, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
