package osdns

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"time"

	"golang.org/x/sys/unix"
)

// nonblock keeps an open of something that is no file from hanging.
const nonblock = unix.O_NONBLOCK

func isLoop(err error) bool { return errors.Is(err, unix.ELOOP) }

// command is a program with the usual umask: resolvconf makes resolv.conf with
// the one that it gets, and that of a service keeps others from its files.
func command(ctx context.Context, path string, args []string) *exec.Cmd {
	return exec.CommandContext(ctx, "/bin/sh", append([]string{"-c", `umask 022; exec "$@"`, "sh", path}, args...)...)
}

// isImmutable reports whether chattr +i keeps everybody from path.
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

// lock keeps others from taking this process's settings back while it runs.
// The kernel lets go of it with the process.
type lock struct{ f *os.File }

func lockPath(root, iface string) string { return at(root, "/run/weft-dns-"+iface+".lock") }

// takeLock takes the lock of an interface; held says that somebody has it. A
// machine where it cannot be made has none.
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

// letsGo is how long a lock is waited for whose process may be gone: a program
// that it was starting when it was killed has its files until that begins,
// milliseconds later.
const letsGo = 2 * time.Second

// awaitFree waits until no running process has the lock, at most until ctx is
// done, and reports whether it is so.
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

// release lets go of it. Its file stays where there is more to put back, so that
// restore sees that.
func (l *lock) release(clean bool) {
	if l == nil {
		return
	}
	if clean {
		os.Remove(l.f.Name())
	}
	l.f.Close()
}
