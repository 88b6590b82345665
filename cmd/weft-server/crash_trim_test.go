package main

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"weft/coord/ops"
)

// A trim of the audit that is killed at any moment leaves an audit that verifies, also
// against heads of before and after, and the next one goes on.
//
// WEFT_CRASH_ROUNDS (default 3) is how often.
func TestCrashTrim(t *testing.T) {
	rounds, _ := strconv.Atoi(os.Getenv("WEFT_CRASH_ROUNDS"))
	if rounds == 0 {
		rounds = 3
	}
	data := newData(t)
	t.Setenv("WEFT_DATA", data)
	// Batch i is 200-i days old; trim removes those up to it.
	const many = 11_000
	for i := range rounds + 1 {
		addOld(t, data, many, time.Duration(200-i)*24*time.Hour)
	}
	trim := func(i int, kill time.Duration) (took time.Duration, done bool) {
		t.Helper()
		cmd := exec.Command(os.Args[0], "audit", "trim", "--before", fmt.Sprintf("%dh", (200-i)*24-12))
		cmd.Env = append(os.Environ(), asServer+"=1")
		began := time.Now()
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		killer := time.AfterFunc(kill, func() { cmd.Process.Kill() })
		defer killer.Stop()
		done = cmd.Wait() == nil
		return time.Since(began), done
	}
	verify := func(what string, head string) (r ops.AuditReport) {
		t.Helper()
		args := []string{"audit", "verify", "--json"}
		if head != "" {
			args = append(args, "--head", head)
		}
		code, out, errs := verb(t, args...)
		if err := json.Unmarshal([]byte(out), &r); code != 0 || err != nil || r.Fault != nil {
			t.Fatalf("%s: exit %d, %v: %s%s", what, code, err, out, errs)
		}
		return r
	}
	whole, done := trim(0, time.Minute)
	if !done {
		t.Fatal("a trim did not end")
	}
	killed, part := 0, 0
	for i := 1; i <= rounds; i++ {
		what, last := fmt.Sprintf("round %d", i), uint64(i+1)*many
		_, head, _ := verb(t, "audit", "head")
		_, done := trim(i, rand.N(whole))
		first := verify(what, strings.TrimSpace(head)).First
		if !done {
			killed++
		}
		if first <= last && first > last-many+1 {
			part++
		}
		if done && first != last+1 {
			t.Errorf("%s: it said that it was done, and record %d is there", what, first)
		}
		if _, done := trim(i, time.Minute); !done {
			t.Fatalf("%s: the next trim did not end", what)
		}
		if r := verify(what, strings.TrimSpace(head)); r.First != last+1 || !r.Compared {
			t.Errorf("%s: %+v after the next trim", what, r)
		}
	}
	t.Logf("a trim of %d records takes %s; %d of %d killed, %d on the way", many, whole.Round(time.Millisecond), killed, rounds, part)
}
