// Package filelock says who owns a directory or a socket: a lock on an open
// file, which the system drops with the process, however that ends.
//
// Not for embedders: nodes, servers and their command lines share it.
package filelock

import "errors"

// ErrLocked is returned by Try when another process, or this one through
// another open file, holds the lock.
var ErrLocked = errors.New("locked by another process")
