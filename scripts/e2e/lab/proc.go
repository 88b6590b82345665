//go:build e2e

package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// User is the user that runs a program.
type User int

// The users: nobody without capabilities, and root.
const (
	Nobody User = Unprivileged
	Root   User = 0
)

// setpriv starts a command that runs as u and ends with this process.
func (u User) setpriv() []string {
	cmd := []string{"setpriv", "--pdeathsig=KILL"}
	if u != Root {
		id := strconv.Itoa(int(u))
		cmd = append(cmd, "--reuid="+id, "--regid="+id, "--clear-groups", "--inh-caps=-all", "--bounding-set=-all", "--no-new-privs")
	}
	return append(cmd, "--")
}

var files atomic.Int64

// Command is a program inside n. Its process id stays the same through all wrappers,
// and it ends with this process.
func (n *Namespace) Command(ctx context.Context, as User, args ...string) *exec.Cmd {
	wrap := append([]string{"netns", "exec", n.Name}, as.setpriv()...)
	cmd := exec.CommandContext(ctx, "ip", append(wrap, args...)...)
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=" + n.lab.Bin + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=" + n.lab.Dir, "LANG=C.UTF-8"}
	if n.lab.FIPS != "" {
		cmd.Env = append(cmd.Env, "GODEBUG=fips140="+n.lab.FIPS)
	}
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// Result is the result of a program.
type Result struct {
	Args []string
	Out  string
	Err  string
	Code int // -1: killed, or not started
	Took time.Duration
}

// String shows the whole result.
func (r Result) String() string {
	return fmt.Sprintf("%s: exit %d after %v\n%s%s", strings.Join(r.Args, " "), r.Code, r.Took.Round(time.Millisecond), r.Out, r.Err)
}

// Run runs a program inside n until it ends, at most a minute.
func (n *Namespace) Run(as User, args ...string) Result {
	return n.RunInput(as, "", time.Minute, args...)
}

// RunInput is Run with standard input and another limit.
func (n *Namespace) RunInput(as User, stdin string, limit time.Duration, args ...string) Result {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	cmd := n.Command(ctx, as, args...)
	return run(cmd, stdin, args)
}

func run(cmd *exec.Cmd, stdin string, args []string) Result {
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	cmd.Stdin = strings.NewReader(stdin)
	start := time.Now()
	err := cmd.Run()
	r := Result{Args: args, Out: out.String(), Err: errs.String(), Took: time.Since(start)}
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		r.Code = exit.ExitCode()
	case err != nil:
		r.Code = -1
		r.Err += err.Error()
	}
	return r
}

// Proc is a running program.
type Proc struct {
	lab      *Lab
	name     string
	cmd      *exec.Cmd
	out, err string // paths of the output files
	done     chan struct{}
	code     int // valid after done
	killed   atomic.Bool
}

// Start starts a program inside n; it is killed at the end of the test.
func (n *Namespace) Start(as User, args ...string) *Proc { return n.StartEnv(as, nil, args...) }

// StartEnv is Start with additional environment variables.
func (n *Namespace) StartEnv(as User, env []string, args ...string) *Proc {
	n.lab.Helper()
	cmd := n.Command(context.Background(), as, args...)
	cmd.Env = append(cmd.Env, env...)
	return n.lab.start(cmd, n, args[0])
}

// start starts a command and watches it.
func (l *Lab) start(cmd *exec.Cmd, n *Namespace, name string) *Proc {
	l.Helper()
	p := &Proc{lab: l, name: filepath.Base(name), cmd: cmd, done: make(chan struct{})}
	base := filepath.Join(l.Dir, fmt.Sprintf("%02d-%s-%s", files.Add(1), strings.TrimPrefix(n.Name, l.id+"-"), p.name))
	p.out, p.err = base+".out", base+".err"
	stdout, err := os.Create(p.out)
	if err != nil {
		l.Fatalf("%v", err)
	}
	defer stdout.Close()
	stderr, err := os.Create(p.err)
	if err != nil {
		l.Fatalf("%v", err)
	}
	defer stderr.Close()
	p.cmd.Stdout, p.cmd.Stderr = stdout, stderr
	if err := p.cmd.Start(); err != nil {
		l.Fatalf("start %s: %v", p.name, err)
	}
	go func() {
		p.cmd.Wait()
		p.code = p.cmd.ProcessState.ExitCode()
		close(p.done)
	}()
	l.mu.Lock()
	l.procs = append(l.procs, p)
	l.mu.Unlock()
	return p
}

// PID is the program's process id.
func (p *Proc) PID() int { return p.cmd.Process.Pid }

// Done is closed once the program has ended.
func (p *Proc) Done() <-chan struct{} { return p.done }

// Out is its stdout so far.
func (p *Proc) Out() string { b, _ := os.ReadFile(p.out); return string(b) }

// Err is its stderr so far.
func (p *Proc) Err() string { b, _ := os.ReadFile(p.err); return string(b) }

// Signal sends sig.
func (p *Proc) Signal(sig os.Signal) { p.cmd.Process.Signal(sig) }

// Wait waits for its end and returns the exit code, -1 for a signal.
func (p *Proc) Wait(limit time.Duration) int {
	p.lab.Helper()
	select {
	case <-p.done:
		return p.code
	case <-time.After(limit):
		p.lab.Fatalf("%s (%d) still runs after %v\n%s", p.name, p.PID(), limit, tail(p.Err()))
		return -1
	}
}

// Stop ends it with SIGTERM; it fails after five seconds.
func (p *Proc) Stop() int {
	p.lab.Helper()
	p.Signal(syscall.SIGTERM)
	return p.Wait(5 * time.Second)
}

// Kill ends it with SIGKILL.
func (p *Proc) Kill() {
	p.killed.Store(true)
	p.cmd.Process.Kill()
	<-p.done
}

func (p *Proc) end() {
	select {
	case <-p.done:
	default:
		p.Signal(syscall.SIGTERM)
		p.Signal(syscall.SIGCONT)
		select {
		case <-p.done:
		case <-time.After(3 * time.Second):
			p.Kill()
		}
	}
}

var crash = regexp.MustCompile(`(?m)^(panic: |fatal error: |WARNING: DATA RACE|goroutine \d+ \[)`)

// judge checks the program's output: no crash, no secret.
func (p *Proc) judge(secrets []string) {
	text := p.Err()
	if loc := crash.FindStringIndex(text); loc != nil {
		p.lab.Errorf("%s crashed:\n%s", p.name, text[loc[0]:min(len(text), loc[0]+6000)])
	}
	for _, s := range secrets {
		if strings.Contains(text, s) {
			p.lab.Errorf("%s printed a secret to stderr: %.16s…", p.name, s)
		}
	}
	if p.lab.Failed() {
		p.lab.Logf("--- %s (%s):\n%s", p.name, filepath.Base(p.err), tail(text))
	}
}

func tail(s string) string {
	lines := strings.SplitAfter(s, "\n")
	return strings.Join(lines[max(0, len(lines)-25):], "")
}

// Usage is the resource usage of a running program so far.
type Usage struct {
	RSS      int64         // resident, bytes
	CPU      time.Duration // user and system, in steps of 10 ms
	Switches int64         // voluntary context switches over all threads: wake-ups
	Threads  int
}

// Usage reads /proc.
func (p *Proc) Usage() Usage {
	p.lab.Helper()
	u, err := usage(p.PID())
	if err != nil {
		p.lab.Fatalf("%s: %v", p.name, err)
	}
	return u
}

func usage(pid int) (u Usage, err error) {
	dir := fmt.Sprintf("/proc/%d/", pid)
	stat, err := os.ReadFile(dir + "stat")
	if err != nil {
		return u, err
	}
	// The name, in parentheses, may contain any character.
	f := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	user, _ := strconv.ParseInt(f[11], 10, 64)
	system, _ := strconv.ParseInt(f[12], 10, 64)
	u.CPU = time.Duration(user+system) * 10 * time.Millisecond
	pages, _ := strconv.ParseInt(f[21], 10, 64)
	u.RSS = pages * int64(os.Getpagesize())
	tasks, err := filepath.Glob(dir + "task/*/status")
	if err != nil {
		return u, err
	}
	u.Threads = len(tasks)
	for _, t := range tasks {
		b, _ := os.ReadFile(t)
		_, rest, _ := strings.Cut(string(b), "\nvoluntary_ctxt_switches:")
		line, _, _ := strings.Cut(rest, "\n")
		n, _ := strconv.ParseInt(strings.TrimSpace(line), 10, 64)
		u.Switches += n
	}
	return u, nil
}
