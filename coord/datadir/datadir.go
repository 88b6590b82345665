// Package datadir holds the data directory of a server, or of a relay that runs
// alone, for one process.
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

// ErrLocked means that another process has the data directory.
var ErrLocked = errors.New("another weft-server uses this data directory")

// LockFile is the file in a data directory that its owner holds the lock of.
const LockFile = "lock"

// Lock takes the data directory for this process, waiting a while for one
// that is about to leave. The lock ends with the process, however it ends.
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
