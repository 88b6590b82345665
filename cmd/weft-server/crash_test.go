package main

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// asServer makes the test program weft-server itself, to be killed.
const asServer = "WEFT_CRASH_VERB"

func TestMain(m *testing.M) {
	if os.Getenv(asServer) == "" {
		os.Exit(m.Run())
	}
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

// Backups of a running server are killed at random moments, or the server
// is, while keys are made. A backup that is there is whole and holds what was
// acknowledged before it began; the server loses nothing.
//
// WEFT_CRASH_ROUNDS (default 2) is how often.
func TestCrashBackup(t *testing.T) {
	rounds, _ := strconv.Atoi(os.Getenv("WEFT_CRASH_ROUNDS"))
	if rounds == 0 {
		rounds = 2
	}
	data, dir := newData(t), t.TempDir()
	keyFile := filepath.Join(dir, "key")
	child := func(args ...string) *exec.Cmd {
		cmd := exec.Command(os.Args[0], args...)
		cmd.Env = append(os.Environ(), asServer+"=1")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		return cmd
	}
	serve := func() *exec.Cmd {
		t.Helper()
		cmd := child("serve", "--data", data, "--listen", "127.0.0.1:0", "--console", "127.0.0.1:0", "--stun", "off", "--url", "https://127.0.0.1:8443", "--log", "error")
		for end := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
			if c, err := net.Dial("unix", filepath.Join(data, "admin.sock")); err == nil {
				c.Close()
				return cmd
			}
			if time.Now().After(end) {
				t.Fatal("the server does not start")
			}
		}
	}
	acked := map[string]bool{}
	makeKey := func() error {
		code, out, errs := verb(t, "keys", "create", "--data", data, "--json")
		var k struct{ ID string }
		if code != 0 || json.Unmarshal([]byte(out), &k) != nil {
			return fmt.Errorf("exit %d: %s", code, errs)
		}
		acked[k.ID] = true
		return nil
	}
	holds := func(what, data string, keys map[string]bool) {
		t.Helper()
		code, list, errs := verb(t, "keys", "list", "--data", data, "--json")
		if code != 0 {
			t.Fatalf("%s: exit %d: %s", what, code, errs)
		}
		for id := range keys {
			if !strings.Contains(list, id) {
				t.Errorf("%s: key %s was acknowledged and is lost", what, id)
			}
		}
	}
	restored := func(what, backup string, keys map[string]bool) {
		t.Helper()
		to := filepath.Join(dir, "restored-"+filepath.Base(backup))
		if code, _, errs := verb(t, "restore", "--data", to, "--key-file", keyFile, backup); code != 0 {
			t.Errorf("%s: restore: exit %d: %s", what, code, errs)
			return
		}
		holds(what, to, keys)
	}
	server := serve()
	defer func() { server.Process.Kill(); server.Wait() }()
	if err := makeKey(); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if err := child("backup", "--data", data, "--key-file", keyFile, "-o", filepath.Join(dir, "whole")).Wait(); err != nil {
		t.Fatal(err)
	}
	whole := time.Since(began)
	restored("the first", filepath.Join(dir, "whole"), acked)
	there := 0
	for round := range rounds {
		backup := filepath.Join(dir, fmt.Sprintf("backup-%d", round))
		before := map[string]bool{}
		for id := range acked {
			before[id] = true
		}
		cmd := child("backup", "--data", data, "--key-file", keyFile, "-o", backup)
		victim, what := cmd, fmt.Sprintf("round %d, backup killed", round)
		if round%2 == 1 {
			victim, what = server, fmt.Sprintf("round %d, server killed", round)
		}
		killed := make(chan struct{})
		time.AfterFunc(rand.N(whole), func() { victim.Process.Kill(); close(killed) })
		for range 40 { // until after the kill, mostly
			if makeKey() != nil {
				break // the server is dead
			}
		}
		<-killed
		err := cmd.Wait()
		if victim == server {
			server.Wait()
			server = serve()
		}
		_, missing := os.Stat(backup)
		if missing == nil {
			there++
			restored(what, backup, before)
		} else if err == nil {
			t.Errorf("%s: it said that it was done: %v", what, missing)
		}
		holds(what, data, acked)
	}
	if code, _, errs := verb(t, "backup", "--data", data, "--key-file", keyFile, "-o", filepath.Join(dir, "last")); code != 0 {
		t.Fatalf("the last: exit %d: %s", code, errs)
	}
	killed := 0
	for range rounds {
		to := filepath.Join(dir, "restored-last")
		cmd := child("restore", "--data", to, "--key-file", keyFile, filepath.Join(dir, "last"))
		time.AfterFunc(rand.N(whole), func() { cmd.Process.Kill() })
		if cmd.Wait() != nil {
			killed++
		}
		if err := os.RemoveAll(to); err != nil { // it was whole
			t.Fatal(err)
		}
	}
	restored("the last", filepath.Join(dir, "last"), acked)
	if left, err := filepath.Glob(filepath.Join(dir, ".*")); err != nil || len(left) > 0 {
		t.Errorf("left beside the backups and what was restored: %v, %v", left, err)
	}
	t.Logf("a backup takes %s; %d of %d were there all the same; %d keys; %d restores killed", whole.Round(time.Millisecond), there, rounds, len(acked), killed)
}
