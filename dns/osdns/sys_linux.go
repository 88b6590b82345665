package osdns

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"time"

	"golang.org/x/sys/unix"
)

// nonblock keeps the open of a special file from blocking.
const nonblock = unix.O_NONBLOCK

func isLoop(err error) bool { return errors.Is(err, unix.ELOOP) }

// command runs a program with the usual umask: resolvconf makes resolv.conf with the
// umask that it inherits, and a service's hides files from others.
func command(ctx context.Context, path string, args []string) *exec.Cmd {
	return exec.CommandContext(ctx, "/bin/sh", append([]string{"-c", `umask 022; exec "$@"`, "sh", path}, args...)...)
}

// isImmutable reports whether path has the attribute of chattr +i.
func isImmutable(path string) bool {
	f, err := os.OpenFile(path, os.O_RDONLY|nonblock, 0)
	if err != nil {
		return false
	}
	defer f.Close()
	flags, err := unix.IoctlGetUint32(int(f.Fd()), unix.FS_IOC_GETFLAGS)
	const immutable, appendOnly = 0x10, 0x20 // FS_IMMUTABLE_FL, FS_APPEND_FL
	return err == nil && flags&(immutable|appendOnly) != 0
}

// copyLabel gives a file the SELinux label of another.
func copyLabel(from, to string) {
	if from == "" {
		return
	}
	b := make([]byte, 1024)
	if n, err := unix.Getxattr(from, "security.selinux", b); err == nil {
		unix.Setxattr(to, "security.selinux", b[:n], 0)
	}
}

// lock keeps other processes from removing this process's settings while it runs. The
// kernel releases it when the process ends.
type lock struct{ f *os.File }

func lockPath(root, iface string) string { return at(root, "/run/weft-dns-"+iface+".lock") }

// takeLock takes the lock of an interface; held says that another process has it. A
// machine on which no lock can be made has none.
func takeLock(root, iface string) (l *lock, held bool) {
	f, err := os.OpenFile(lockPath(root, iface), os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, false
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, true
	}
	return &lock{f}, false
}

// isHeld reports whether a running process has the lock.
func isHeld(root, iface string) bool {
	f, err := os.Open(lockPath(root, iface))
	if err != nil {
		return false
	}
	defer f.Close()
	return errors.Is(unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB), unix.EWOULDBLOCK)
}

// letsGo is how long to wait for the lock of a process that may be gone: a program that
// it was starting when it was killed inherits its files until exec, some milliseconds.
const letsGo = 2 * time.Second

// awaitFree waits until no running process has the lock, at most until ctx is done, and
// reports whether the lock is free.
func awaitFree(ctx context.Context, root, iface string) bool {
	for isHeld(root, iface) {
		select {
		case <-ctx.Done():
			return false
		case <-time.After(20 * time.Millisecond):
		}
	}
	return true
}

// release releases the lock. Its file stays if there is more to restore, so that
// Restore knows.
func (l *lock) release(clean bool) {
	if l == nil {
		return
	}
	if clean {
		os.Remove(l.f.Name())
	}
	l.f.Close()
}
