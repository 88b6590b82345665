package store

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"weft/overlay/api/wiretest"
)

// crashing makes the test program open a database and end: a server that
// starts, for TestCrashUpgrade to kill.
const crashing = "WEFT_CRASH_OPEN"

func TestMain(m *testing.M) {
	path := os.Getenv(crashing)
	if path == "" {
		os.Exit(m.Run())
	}
	fmt.Println("opening")
	s, err := Open(context.Background(), Options{Path: path})
	if err == nil {
		err = s.Close()
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("done")
}

// An upgrade that is killed at any moment, and the next attempt too, goes on
// at the third, with nothing lost and the copy that was made before.
//
// WEFT_CRASH_ROUNDS (default 6) is how often.
func TestCrashUpgrade(t *testing.T) {
	rounds, _ := strconv.Atoi(os.Getenv("WEFT_CRASH_ROUNDS"))
	if rounds == 0 {
		rounds = 6
	}
	// upgrade returns how long it took, or that it was killed before its end.
	upgrade := func(path string, kill time.Duration) (took time.Duration, done bool) {
		t.Helper()
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), crashing+"="+path)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		lines.Scan()
		start := time.Now()
		killer := time.AfterFunc(kill, func() { cmd.Process.Kill() })
		for lines.Scan() {
			if done = lines.Text() == "done"; !done {
				t.Errorf("%s: %s", path, lines.Text())
			}
		}
		took = time.Since(start)
		killer.Stop()
		cmd.Wait()
		return took, done
	}
	whole, done := upgrade(recorded(t, 1), time.Minute)
	if !done {
		t.Fatal("an upgrade did not end")
	}
	killed := 0
	for round := range rounds {
		schema := 1 + round%(schemaVersion()-1)
		path := recorded(t, schema)
		for nth := range 2 {
			took, done := upgrade(path, rand.N(whole))
			switch {
			case !done:
				killed++
			case nth == 0: // a whole one, on a machine that is as busy as now; others take longer
				whole = took + took/4
			}
		}
		s := open(t, path, Options{Readers: 1})
		wiretest.Golden(t, fmt.Sprintf("testdata/schema-%d.json", schema), meaning(t, s), false)
		err := s.Read(t.Context(), func(r *Reader) error {
			var version int
			var check string
			if err := r.row("PRAGMA user_version", nil, &version); err != nil || version != schemaVersion() {
				return fmt.Errorf("schema %d, %w", version, err)
			}
			if err := r.row("PRAGMA integrity_check", nil, &check); err != nil || check != "ok" {
				return fmt.Errorf("integrity %q, %w", check, err)
			}
			return nil
		})
		if err != nil {
			t.Errorf("round %d, from schema %d: %v", round, schema, err)
		}
		s.Close()
		if _, err := os.Stat(fmt.Sprintf("%s.schema-%d", path, schema)); err != nil {
			t.Errorf("round %d: no copy of what was: %v", round, err)
		}
	}
	if t.Logf("an upgrade takes %s; %d of %d were killed", whole, killed, 2*rounds); killed == 0 {
		t.Error("none was killed")
	}
}
