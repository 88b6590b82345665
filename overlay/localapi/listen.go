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

// ErrInUse is returned by Listen when another daemon serves the socket.
var ErrInUse = errors.New("another daemon serves it")

// Listen makes the daemon's socket at path: mode 0600, in a directory that is
// made with mode 0700 when it does not exist; for a group, 0660 and 0755, and
// whoever may connect is in the group (Server.Group). A socket file left behind by a
// killed daemon is replaced; whether its daemon lives is decided by a lock
// (PATH.lock, flock), which the kernel drops with the process, never by
// trying to connect. Closing the listener removes the socket and the lock.
func Listen(path, group string) (net.Listener, error) {
	if err := checkDir(filepath.Dir(path), group); err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	lock, err := lockSocket(path + ".lock")
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	// With the lock held the file can only be a leftover. Anything but a
	// socket is somebody's data and stays.
	if fi, err := os.Lstat(path); err == nil {
		if fi.Mode().Type() != os.ModeSocket {
			lock.Close()
			return nil, fmt.Errorf("listen on %s: the path exists and is not a socket; choose another with --socket", path)
		}
		if err := os.Remove(path); err != nil {
			lock.Close()
			return nil, fmt.Errorf("listen on %s: %w", path, err)
		}
	}
	// The mode of the socket itself becomes the mode of its file, so there is
	// no moment in which others could connect.
	lc := net.ListenConfig{Control: peercred.Private}
	l, err := lc.Listen(context.Background(), "unix", path)
	if err == nil {
		err = open(path, group)
		if err != nil {
			l.Close()
		}
	}
	if err != nil {
		lock.Close()
		if errors.Is(err, syscall.EINVAL) { // what the system says of a path that does not fit
			return nil, fmt.Errorf("listen on %s: a path of %d characters is longer than the system takes for a socket; give a shorter one with --socket", path, len(path))
		}
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	return &listener{Listener: l, lock: lock}, nil
}

// open lets in who may speak: our own user, or the group too.
func open(path, group string) error {
	if group == "" {
		return os.Chmod(path, 0o600) // where the system ignores the socket's mode
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

// checkDir makes dir, or makes sure that nobody else can swap files in it.
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

// lockPatience is how long a lock may outlive its daemon: a child that the
// daemon was forking when it was killed holds it until it has become another
// program.
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
		// The file may have been removed by its last owner between open and
		// flock; then the lock is on a file that nobody else will ever open.
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
		l.lock.Close()
	}
	return err
}
