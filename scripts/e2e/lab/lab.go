//go:build e2e

// Package lab builds a small internet of network namespaces and runs the real programs
// in it, for the end-to-end tests and scripts/bench. It needs Linux, root, iproute2,
// nftables and util-linux.
//
//	internet   a bridge, 203.0.113.0/24; its own address is .1
//	host       a machine on it (the server is .10)
//	home       a router (.101, .102, …) that masquerades and drops every
//	           forwarded UDP packet, and one machine behind it, 192.168.1.2;
//	           the router answers DNS on 192.168.1.1
//
// Every namespace is named weft-e2e-PID-…, each program ends with the test process, and
// Close removes everything, even after a failure. The next run removes the leftovers of
// a killed one (Sweep).
//
//	lab.go        the Lab, its directory, its end
//	netns.go      namespaces, and operations inside them
//	topology.go   bridge, hosts, homes
//	proc.go       programs: start, stop, resource usage
//	weft.go       weft-server and weft
//	slow.go       an uplink with a rate and a queue
//	services.go   services on devices
//	root.go       separate Debian systems
//	layers.go     their file systems, made by debootstrap
//	release.go    releases that a server hands out
package lab

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
)

// TB is the part of testing.TB that the lab needs, so that scripts/bench can use it,
// too.
type TB interface {
	Helper()
	Logf(format string, args ...any)
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
	Cleanup(func())
	Failed() bool
}

// Unprivileged is the user of weft and weft-server: nobody, without capabilities.
const Unprivileged = 65534

const prefix = "weft-e2e-"

var serial atomic.Int64

// Lab is one internet with its programs.
type Lab struct {
	TB
	Bin string // directory with the binaries
	Dir string // every user may enter it
	id  string // of the namespaces

	Internet *Namespace

	// FIPS is GODEBUG=fips140 of the programs in namespaces, "" for what they were built
	// with. WEFT_E2E_FIPS sets it for all tests.
	FIPS string

	mu      sync.Mutex
	spaces  []*Namespace
	procs   []*Proc
	secrets []string
	homes   int
	hosts   int
}

// New makes an internet without hosts. bin holds weft and weft-server (see Build). It
// ends with the test.
func New(tb TB, bin string) *Lab {
	tb.Helper()
	dir, err := os.MkdirTemp("", prefix)
	if err != nil {
		tb.Fatalf("make directory: %v", err)
	}
	os.Chmod(dir, 0o755)
	l := &Lab{TB: tb, Bin: bin, Dir: dir, FIPS: os.Getenv("WEFT_E2E_FIPS"), id: fmt.Sprintf("%s%d-%d", prefix, os.Getpid(), serial.Add(1))}
	tb.Cleanup(l.close)
	l.makeInternet()
	return l
}

// Secret registers a word that must never appear in a program's stderr.
func (l *Lab) Secret(s string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.secrets = append(l.secrets, s)
}

// Mkdir makes a directory that belongs to the unprivileged user.
func (l *Lab) Mkdir(name string) string {
	l.Helper()
	dir := filepath.Join(l.Dir, name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		l.Fatalf("%v", err)
	}
	os.Chown(dir, Unprivileged, Unprivileged)
	return dir
}

// WriteFile writes a file (mode 0600) of the unprivileged user.
func (l *Lab) WriteFile(name, content string) string {
	l.Helper()
	path := filepath.Join(l.Dir, name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		l.Fatalf("%v", err)
	}
	os.Chown(path, Unprivileged, Unprivileged)
	return path
}

func (l *Lab) close() {
	for i := len(l.procs) - 1; i >= 0; i-- {
		l.procs[i].end()
	}
	for _, p := range l.procs {
		p.judge(l.secrets)
	}
	for i := len(l.spaces) - 1; i >= 0; i-- {
		l.spaces[i].remove()
	}
	if os.Getenv("WEFT_E2E_KEEP") == "" {
		os.RemoveAll(l.Dir)
	} else {
		l.Logf("kept %s", l.Dir)
	}
}

// Sweep removes the namespaces of dead runs.
func Sweep() {
	names, _ := filepath.Glob("/run/netns/" + prefix + "*")
	for _, path := range names {
		name := filepath.Base(path)
		pid, _, _ := strings.Cut(strings.TrimPrefix(name, prefix), "-")
		n, err := strconv.Atoi(pid)
		if err == nil && syscall.Kill(n, 0) == syscall.ESRCH {
			exec.Command("ip", "netns", "delete", name).Run()
			os.RemoveAll("/etc/netns/" + name)
		}
	}
	os.Remove("/etc/netns") // if it is empty
}

// Build builds weft and weft-server into dir like a release, and the tests' own
// programs in the given packages of this module.
func Build(dir string, packages ...string) error {
	root, err := output("go", "list", "-m", "-f", "{{.Dir}}")
	if err != nil {
		return err
	}
	for _, program := range []string{"weft", "weft-server"} {
		if _, err := output(filepath.Join(strings.TrimSpace(root), "scripts/build"), program, filepath.Join(dir, program)); err != nil {
			return err
		}
	}
	_, err = output("go", append([]string{"build", "-trimpath", "-ldflags", "-s -w", "-tags", "e2e", "-o", dir + "/"}, packages...)...)
	return err
}

// output runs a command without cgo in its environment.
func output(name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, stderr.String())
	}
	return string(out), nil
}
