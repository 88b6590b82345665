// Package filelock locks a directory or a socket by a lock on an open file. The system
// releases the lock when the process ends, in whatever way.
//
// Not for embedders: nodes, servers and their command lines share it.
package filelock

import "errors"

// ErrLocked is the error of Try if another process, or this one through another open
// file, holds the lock.
var ErrLocked = errors.New("locked by another process")
