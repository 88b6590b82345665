// Package filelock locks a directory or a socket by a lock on an open file. The system
// releases the lock when the process ends, in whatever way.
//
// Not for embedders: nodes, servers and their command lines share it.
package filelock

import (
	"errors"
	"os"
)

// ErrLocked is the error of Try if another process, or this one through another open
// file, holds the lock.
var ErrLocked = errors.New("locked by another process")

// Release releases the lock on f and closes f. Closing alone would leave the lock to a child
// of this process that has not yet begun its program, for as long as that takes.
func Release(f *os.File) error {
	unlock(f) // if it fails, closing does the same a little later
	return f.Close()
}
