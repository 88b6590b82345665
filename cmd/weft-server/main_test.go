package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"weft/coord/ops"
	"weft/coord/store/storetest"
)

// verb runs a verb and returns its exit code and output.
func verb(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = run(args, &out, &errs)
	return code, out.String(), errs.String()
}

func newData(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	storetest.Schema(t, dir)
	s, err := ops.OpenService(context.Background(), ops.Options{Data: dir, Create: true, URLs: []string{"https://127.0.0.1:8443"}})
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	return dir
}

func TestVerbs(t *testing.T) {
	data := newData(t)
	t.Setenv("WEFT_DATA", data)
	code, out, _ := verb(t, "keys", "create", "--tag", "camera", "--reusable", "--expires", "7d", "--json")
	var k ops.KeyCreated
	if err := json.Unmarshal([]byte(out), &k); code != 0 || err != nil || !strings.HasPrefix(k.Token, "weft1") || time.Until(k.Expires) < 6*24*time.Hour {
		t.Fatalf("%d %s", code, out)
	}
	if code, out, _ := verb(t, "keys", "create"); code != 0 || !strings.HasPrefix(out, "weft1") || strings.Count(out, "\n") != 1 {
		t.Errorf("%d %q", code, out)
	}
	if code, out, _ := verb(t, "keys", "list"); code != 0 || !strings.Contains(out, "reusable") || strings.Contains(out, k.Token) {
		t.Errorf("%d %q", code, out)
	}
	if code, _, _ := verb(t, "keys", "revoke", k.ID); code != 0 {
		t.Error(code)
	}
	if code, out, _ := verb(t, "keys", "list", "--json"); code != 0 || !strings.Contains(out, `"revoked": "`) {
		t.Errorf("%d %q", code, out)
	}
	if code, out, _ := verb(t, "devices", "list", "--json"); code != 0 || strings.TrimSpace(out) != "[]" {
		t.Errorf("%d %q", code, out)
	}
	if code, out, _ := verb(t, "login-link"); code != 0 || !strings.HasPrefix(out, "https://127.0.0.1:8443/welcome?link=") {
		t.Errorf("%d %q", code, out)
	}
	if code, out, _ := verb(t, "version"); code != 0 || !strings.HasPrefix(out, "weft-server ") {
		t.Errorf("%d %q", code, out)
	}
	if code, out, _ := verb(t, "completion", "bash"); code != 0 || !strings.Contains(out, "weft-server") {
		t.Errorf("%d %.60q", code, out)
	}
}

// Every mistake is one line that says what, and an exit code.
func TestErrors(t *testing.T) {
	data := newData(t)
	for _, c := range []struct {
		args []string
		code int
	}{
		{[]string{"nonsense"}, 2},
		{[]string{"dns"}, 2},
		{[]string{"keys", "--data", data + "/none"}, 1},
		{[]string{"keys", "nonsense"}, 2},
		{[]string{"devices", "show", "--data", data}, 2},
		{[]string{"devices", "show", "nobody", "--data", data}, 5},
		{[]string{"devices", "delete", "nobody", "--data", data}, 5},
		{[]string{"keys", "create", "--expires", "soon", "--data", data}, 2},
		{[]string{"keys", "create", "--expires", "9999h", "--data", data}, 2},
		{[]string{"keys", "create", "--tag", "a b", "--data", data}, 2},
		{[]string{"keys", "list", "--data", data + "/none"}, 1},
		{[]string{"keys", "list", "--wrong"}, 2},
		{[]string{"serve", "--data", data, "--ipv4", "x"}, 2},
		{[]string{"serve", "--data", data, "--trusted-proxy", "x"}, 2},
		{[]string{"serve", "--data", data, "--log", "loud"}, 2},
		{[]string{"serve", "--data", data, "--listen", "127.0.0.1:0", "--console", "off", "--stun", "off", "--url", "http://x"}, 2},
		{[]string{"serve", "--data", ""}, 2},
	} {
		code, out, errs := verb(t, c.args...)
		if code != c.code || out != "" || strings.Count(errs, "\n") < 1 || !strings.Contains(errs, "weft-server: ") {
			t.Errorf("%v: exit %d, want %d\n%s%s", c.args, code, c.code, out, errs)
		}
	}
}

// serve prints its two lines once, answers /healthz, lets the verbs in, and
// is gone within 5 s of SIGTERM.
func TestServe(t *testing.T) {
	data := t.TempDir()
	t.Setenv("WEFT_LISTEN", "127.0.0.1:0")
	t.Setenv("WEFT_STUN", "off")
	start := func() (lines *bufio.Scanner, stop func() int) {
		out, w := io.Pipe()
		done := make(chan int, 1)
		go func() {
			done <- run([]string{"serve", "--data", data, "--console", "127.0.0.1:0", "--log", "error"}, w, os.Stderr)
			w.Close()
		}()
		return bufio.NewScanner(out), func() int {
			began := time.Now()
			syscall.Kill(os.Getpid(), syscall.SIGTERM)
			code := <-done
			if time.Since(began) > 5*time.Second {
				t.Errorf("stopped after %s", time.Since(began))
			}
			return code
		}
	}
	lines, stop := start()
	lines.Scan()
	console, ok1 := strings.CutPrefix(lines.Text(), "console ")
	lines.Scan()
	token, ok2 := strings.CutPrefix(lines.Text(), "token ")
	if !ok1 || !ok2 || !strings.HasPrefix(console, "http://127.0.0.1:") || !strings.HasPrefix(token, "weft1") {
		t.Fatalf("printed %q, %q", console, token)
	}
	base, _, _ := strings.Cut(console, "/welcome")
	res, err := http.Get(base + "/healthz")
	if err != nil || res.StatusCode != 200 {
		t.Errorf("%v, %v", res, err)
	}
	if code, out, errs := verb(t, "login-link", "--data", data); code != 0 || !strings.HasPrefix(out, base+"/welcome?link=") {
		t.Errorf("%d %q %q", code, out, errs)
	}
	if code := stop(); code != 0 {
		t.Errorf("exit %d", code)
	}
	lines, stop = start()
	for { // ready when the socket answers; it is there from before
		if c, err := net.Dial("unix", filepath.Join(data, "admin.sock")); err == nil {
			c.Close()
			break
		}
		time.Sleep(time.Millisecond)
	}
	if code := stop(); code != 0 {
		t.Errorf("exit %d", code)
	}
	if lines.Scan() {
		t.Errorf("the second start printed %q", lines.Text())
	}
}
