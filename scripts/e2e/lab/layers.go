//go:build e2e

package lab

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The file systems of the roots: a base and layers of packages, made once and kept.

// sweepRoot removes the files of a root.
func sweepRoot(work string) {
	unix.Unmount(filepath.Join(work, "root"), unix.MNT_DETACH)
	os.RemoveAll(work)
}

// sweepRoots removes those of dead runs.
func sweepRoots() {
	list, _ := filepath.Glob(filepath.Join(rootCache(), "run", prefix+"*"))
	for _, work := range list {
		pid, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(work), prefix), "-")
		if n, err := strconv.Atoi(pid); err == nil && syscall.Kill(n, 0) == syscall.ESRCH {
			sweepRoot(work)
		}
	}
}

// rootLayers returns the layers of a root with these packages, topmost first, and makes
// missing ones.
func (l *Lab) rootLayers(packages []string) []string {
	l.Helper()
	dir := rootCache()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		l.Fatalf("%v", err)
	}
	unlock, err := lockDir(dir)
	if err != nil {
		l.Fatalf("%v", err)
	}
	defer unlock()
	sweepRoots()
	base := filepath.Join(dir, "base")
	if err := makeOnce(base, makeBase); err != nil {
		l.Fatalf("%v", err)
	}
	if len(packages) == 0 {
		return []string{base}
	}
	packages = slices.Sorted(slices.Values(packages))
	sum := sha256.Sum256([]byte(strings.Join(packages, " ")))
	layer := filepath.Join(dir, packages[0]+"-"+hex.EncodeToString(sum[:4]))
	err = makeOnce(layer, func(to string) error { return makeLayer(base, to, packages) })
	if err != nil {
		l.Fatalf("%v", err)
	}
	return []string{layer, base}
}

// lockDir makes other test processes wait.
func lockDir(dir string) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		f.Close()
		return nil, err
	}
	return func() { f.Close() }, nil
}

// makeOnce makes a directory that exists only once it is complete.
func makeOnce(dir string, make func(to string) error) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	tmp := dir + ".part"
	os.RemoveAll(tmp) // left by a killed process
	if err := os.Mkdir(tmp, 0o755); err != nil {
		return err
	}
	if err := make(tmp); err != nil {
		os.RemoveAll(tmp)
		return err
	}
	return os.Rename(tmp, dir)
}

func makeBase(to string) error {
	if out, err := command("debootstrap", "--variant=minbase", "--include="+basePackages, suite(), to, mirror()); err != nil {
		return fmt.Errorf("debootstrap: %w\n%s", err, tail(out))
	}
	// Keep the package lists, so that layers need not fetch them.
	if out, err := command("chroot", to, "apt-get", "-o", "Acquire::Check-Valid-Until=false", "update", "-qq"); err != nil {
		return fmt.Errorf("apt-get update in a root: %w\n%s", err, tail(out))
	}
	return nil
}

// makeLayer installs packages over base, without starting services.
func makeLayer(base, to string, packages []string) error {
	work, root := to+".work", to+".root"
	for _, d := range []string{work, root} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
		defer os.RemoveAll(d)
	}
	if err := unix.Mount("overlay", root, "overlay", 0, "lowerdir="+base+",upperdir="+to+",workdir="+work); err != nil {
		return fmt.Errorf("mount a layer: %w", err)
	}
	defer unix.Unmount(root, unix.MNT_DETACH)
	script := `set -e
printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d; chmod 755 /usr/sbin/policy-rc.d
export DEBIAN_FRONTEND=noninteractive
apt-get install -y -qq --no-install-recommends "$@"
rm /usr/sbin/policy-rc.d
apt-get clean`
	if out, err := command("chroot", append([]string{root, "sh", "-c", script, "sh"}, packages...)...); err != nil {
		return fmt.Errorf("install %s in a root: %w\n%s", strings.Join(packages, " "), err, tail(out))
	}
	return nil
}

func command(name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8"}
	for _, v := range os.Environ() {
		if k, _, _ := strings.Cut(v, "="); strings.HasSuffix(strings.ToLower(k), "_proxy") {
			cmd.Env = append(cmd.Env, v)
		}
	}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func copyFile(from, to string, mode os.FileMode) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	if cerr := out.Close(); err == nil {
		err = cerr
	}
	return err
}
