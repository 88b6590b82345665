package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"weft/cmd/internal/cli/clitest"
	"weft/coord"
	"weft/coord/ops"
)

// With --server and --token-file, or their variables, the verbs of the API work on a
// server elsewhere, as its service, and on no directory here.
func TestRemoteVerbs(t *testing.T) {
	data, dir := newData(t), t.TempDir()
	addDevices(t, data, "kitchen-pi")
	s, err := coord.NewServer(t.Context(), coord.ServerOptions{Options: ops.Options{Data: data, URLs: []string{"https://127.0.0.1:8443"}}, Listen: coord.Address{Addr: "127.0.0.1:0", Explicit: true}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	server, file := "https://"+s.Addr().String(), filepath.Join(dir, "token")
	if code, _, errs := verb(t, "users", "create", "deploy", "--service", "--role", "operator", "--data", data); code != 0 || !strings.Contains(errs, "tokens create deploy") {
		t.Fatal(code, errs)
	}
	code, token, errs := verb(t, "tokens", "create", "deploy", "--note", "ci", "--data", data)
	if code != 0 || !strings.HasPrefix(token, "weftapi1") {
		t.Fatal(code, errs)
	}
	write := func(text string, mode os.FileMode) {
		t.Helper()
		os.Remove(file)
		if err := os.WriteFile(file, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(file, mode); err != nil { // whatever the umask is
			t.Fatal(err)
		}
	}
	write(token, 0o600)
	t.Setenv("WEFT_DATA", filepath.Join(dir, "none"))
	flags := []string{"--server", server, "--token-file", file}
	for _, c := range []struct {
		args, want string
		code       int
	}{
		{"devices list", "kitchen-pi", 0},
		{"devices", "kitchen-pi", 0},
		{"devices rename kitchen-pi hall", "hall", 0},
		{"devices show hall", "hall.weft.internal", 0},
		{"keys create --tag device", "weft1", 0},
		{"keys list", "one-time", 0},
		{"users list", "deploy", 0},
		{"tokens list", "ci", 0},
		{"relays list", "online", 0},
		{"dns show", "weft.internal", 0},
		{"policy show", "rules", 0},
		{"devices show nosuch", `device "nosuch": not found`, 5},
		{"audit list", "audit.read as operator: not allowed; see what deploy may do: weft-server users list", 1},
		{"users create eve", "user.create as operator: not allowed", 1},
		{"backup --key-file k", "weft-server backup runs on the machine of the server", 2},
		{"restore --key-file k b", "weft-server restore runs on the machine of the server", 2},
		{"login-link", "weft-server login-link runs on the machine of the server", 2},
		{"devices list --data " + data, "use one of them", 2},
	} {
		code, out, errs := verb(t, append(strings.Fields(c.args), flags...)...)
		if code != c.code || !strings.Contains(out+errs, c.want) || clitest.Raw(errs) {
			t.Errorf("%s: exit %d, want %d and %q:\n%s%s", c.args, code, c.code, c.want, out, errs)
		}
	}
	if code, _, errs := verb(t, "users", "edit", "deploy", "--tag", "camera", "--data", data); code != 0 {
		t.Fatal(code, errs)
	}
	for args, want := range map[string]string{
		"keys create":              "key.create without any of your tags, which are camera: not allowed",
		"keys create --tag c2":     "key.create without any of your tags, which are camera: not allowed",
		"keys create --user admin": "key.create without any of your tags, which are camera: not allowed",
	} {
		if code, _, errs := verb(t, append(strings.Fields(args), flags...)...); code != 1 || !strings.Contains(errs, want) {
			t.Errorf("%s: exit %d, want %q: %s", args, code, want, errs)
		}
	}
	if code, _, errs := verb(t, "users", "edit", "deploy", "--tag=", "--data", data); code != 0 {
		t.Fatal(code, errs)
	}
	if _, err := os.Stat(filepath.Join(dir, "none")); err == nil {
		t.Error("something was made in the data directory")
	}
	if code, _, errs := verb(t, "devices", "list", "--server", "http://"+s.Addr().String(), "--token-file", file); code != 1 || !strings.Contains(errs, "want https://HOST:PORT") {
		t.Errorf("http for https: exit %d: %s", code, errs)
	}
	t.Setenv("WEFT_SERVER", server)
	t.Setenv("WEFT_TOKEN_FILE", file)
	if code, out, errs := verb(t, "devices", "list"); code != 0 || !strings.Contains(out, "hall") {
		t.Errorf("by variables: exit %d: %s%s", code, out, errs)
	}
	if code, out, errs := verb(t, "users", "list", "--data", data); code != 0 || !strings.Contains(out, "admin") {
		t.Errorf("a directory that is named comes before the variables: exit %d: %s%s", code, out, errs)
	}
	if code, _, errs := verb(t, "login-link", "--data", data); code != 0 {
		t.Errorf("the variables are not for it: exit %d: %s", code, errs)
	}
	for mode, ok := range map[os.FileMode]bool{0o600: true, 0o400: true, 0o640: true, 0o644: false, 0o602: false, 0o604: false} {
		write(token, mode)
		code, _, errs := verb(t, "devices", "list")
		if (code == 0) != ok || !ok && !strings.Contains(errs, "chmod o= "+file) {
			t.Errorf("token file %v: exit %d: %s", mode, code, errs)
		}
	}
	for text, want := range map[string]string{"": "no token", "weft1abc": "that is not a token", token[:30]: "incomplete or mistyped", token + token: "more than one token"} {
		write(text, 0o600)
		if code, _, errs := verb(t, "devices", "list"); code != 2 || !strings.Contains(errs, want) || strings.Contains(errs, token[10:20]) || clitest.Raw(errs) {
			t.Errorf("%.20q: exit %d: %s", text, code, errs)
		}
	}
}

// Every verb that uses the API has --server; every other that has not says why.
func TestRemoteFlags(t *testing.T) {
	local := map[string]bool{"serve": true, "install": true, "uninstall": true, "doctor": true, "relay": true, "version": true, "backup": true, "restore": true, "login-link": true}
	for name, cmd := range clitest.Verbs(newRoot()) {
		first, _, _ := strings.Cut(name, " ")
		f := cmd.Flag("server")
		if has := f != nil && !f.Hidden && first != "relay"; has == local[first] {
			t.Errorf("%s: has --server: %v", name, has)
		}
	}
}
