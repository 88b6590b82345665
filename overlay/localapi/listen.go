package localapi

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"weft/overlay/filelock"
	"weft/overlay/peercred"
)

// ErrInUse is Listen's error if another daemon serves the socket.
var ErrInUse = errors.New("another daemon uses this socket")

// Listen makes the daemon's socket at path: mode 0600, in a directory that is made with
// mode 0700 if it does not exist. With group it is 0660 and 0755, and the group's
// members may connect (Server.Group). The socket file of a killed daemon is replaced.
// Whether a daemon lives is decided by a lock (PATH.lock, flock), which the kernel
// releases with the process, and never by a connection attempt. Closing the listener
// removes the socket and the lock.
func Listen(path, group string) (net.Listener, error) {
	if err := checkDir(filepath.Dir(path), group); err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	lock, err := lockSocket(path + ".lock")
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	// We hold the lock, so a socket here is a leftover. Any other file is data and
	// stays.
	if fi, err := os.Lstat(path); err == nil {
		if fi.Mode().Type() != os.ModeSocket {
			filelock.Release(lock)
			return nil, fmt.Errorf("listen on %s: the path exists and is not a socket; choose another with --socket", path)
		}
		if err := os.Remove(path); err != nil {
			filelock.Release(lock)
			return nil, fmt.Errorf("listen on %s: %w", path, err)
		}
	}
	// The mode of the socket becomes the mode of its file, so others can never connect
	// in between.
	lc := net.ListenConfig{Control: peercred.Private}
	l, err := lc.Listen(context.Background(), "unix", path)
	if err == nil {
		err = open(path, group)
		if err != nil {
			l.Close()
		}
	}
	if err != nil {
		filelock.Release(lock)
		if errors.Is(err, syscall.EINVAL) { // the system's error for a path that is too long
			return nil, fmt.Errorf("listen on %s: the path is too long for a socket: %d characters; choose a shorter one with --socket", path, len(path))
		}
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	return &listener{Listener: l, lock: lock}, nil
}

// open grants access to the socket: to our own user, and to the group if there is one.
func open(path, group string) error {
	if group == "" {
		return os.Chmod(path, 0o600) // for systems that ignore the socket's mode
	}
	g, err := user.LookupGroup(group)
	if err != nil {
		return err
	}
	gid, err := strconv.Atoi(g.Gid)
	if err != nil {
		return err
	}
	if err := os.Chown(path, -1, gid); err != nil {
		return err
	}
	return os.Chmod(path, 0o660)
}

// checkDir makes dir, or checks that no other user can replace files in it.
func checkDir(dir, group string) error {
	mode := os.FileMode(0o700)
	if group != "" {
		mode = 0o755
	}
	if err := os.MkdirAll(dir, mode); err != nil {
		return err
	}
	fi, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if fi.Mode().Perm()&0o022 != 0 && fi.Mode()&os.ModeSticky == 0 {
		return fmt.Errorf("directory %s is writable by others: chmod go-w it or choose another --socket", dir)
	}
	return nil
}

// lockPatience is how long a lock may outlive its daemon: a child that the daemon was
// forking when it was killed holds the lock until its exec.
const lockPatience = 500 * time.Millisecond

// lockSocket takes the lock or returns ErrInUse.
func lockSocket(path string) (*os.File, error) {
	for start := time.Now(); ; {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|noFollow, 0o600)
		if err != nil {
			return nil, err
		}
		if err := filelock.Try(f); err != nil {
			f.Close()
			if !errors.Is(err, filelock.ErrLocked) {
				return nil, err
			}
			if time.Since(start) > lockPatience {
				return nil, ErrInUse
			}
			time.Sleep(10 * time.Millisecond)
			continue
		}
		// The last owner may have removed the file between open and flock; then the
		// lock is on a file that no other process opens.
		have, err1 := f.Stat()
		there, err2 := os.Stat(path)
		if err1 == nil && err2 == nil && os.SameFile(have, there) {
			return f, nil
		}
		f.Close()
	}
}

// listener removes the lock file after the socket.
type listener struct {
	net.Listener
	lock *os.File
}

func (l *listener) Close() error {
	err := l.Listener.Close() // unlinks the socket
	if err == nil {
		os.Remove(l.lock.Name())
		filelock.Release(l.lock)
	}
	return err
}
