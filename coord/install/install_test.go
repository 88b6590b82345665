package install

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"weft/overlay/release"
)

func released(t *testing.T, dir, version string, files map[string]string) {
	t.Helper()
	_, key, _ := ed25519.GenerateKey(nil)
	m := release.Manifest{Schema: release.Schema, Version: version}
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
		size, sum, err := release.Sum(path)
		if err != nil {
			t.Fatal(err)
		}
		p := strings.Split(name, "-")
		m.Files = append(m.Files, release.File{Name: name, Program: p[0], OS: p[1], Arch: p[2], Kind: "binary", Size: size, SHA256: sum})
	}
	b, _ := json.Marshal(m)
	for name, b := range map[string][]byte{release.SignatureName: release.Sign(key, b), release.KeyName: release.EncodeKey(key.Public().(ed25519.PublicKey)), release.ManifestName: b} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func serve(t *testing.T, dir string) (get func(path string) (int, string)) {
	t.Helper()
	r := New(dir, nil)
	t.Cleanup(r.Close)
	srv := httptest.NewServer(r.Handler(func(*http.Request) string { return "https://weft.example:8443" }, func(string) string { return "sha256//abc=" }, func(*http.Request) netip.Addr { return netip.Addr{} }, nil))
	t.Cleanup(srv.Close)
	return func(path string) (int, string) {
		res, err := http.Get(srv.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		var b bytes.Buffer
		if _, err := b.ReadFrom(res.Body); err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, b.String()
	}
}

func TestHandsOutWhatTheManifestNames(t *testing.T) {
	dir := t.TempDir()
	get := serve(t, dir)
	if code, body := get("/install"); code != 503 || !strings.Contains(body, "scripts/release") {
		t.Errorf("without a release: %d %q", code, body)
	}
	released(t, dir, "1", map[string]string{"weft-linux-amd64": "program"})
	os.WriteFile(filepath.Join(dir, "secret"), []byte("x"), 0o644)
	code, body := get("/install")
	if code != 200 || !strings.Contains(body, "BASE='https://weft.example:8443/install'") || !strings.Contains(body, "PIN='sha256//abc='") || !strings.Contains(body, " 1 linux amd64 weft-linux-amd64\n") {
		t.Errorf("%d %s", code, body)
	}
	for path, want := range map[string]int{
		"/install/weft-linux-amd64": 200, "/install/manifest.json": 200, "/install/manifest.json.sig": 200, "/install/release.pub": 200,
		"/install/secret": 404, "/install/..%2f..%2fetc%2fpasswd": 404, "/install/": 404, "/install/weft-linux-arm64": 404,
	} {
		if code, _ := get(path); code != want {
			t.Errorf("%s: %d, want %d", path, code, want)
		}
	}
	// A new release is noticed, one whose signature does not hold is not handed out.
	time.Sleep(10 * time.Millisecond) // another modification time
	released(t, dir, "2", map[string]string{"weft-linux-amd64": "program 2"})
	if _, body := get("/install"); !strings.Contains(body, "weft 2 ") {
		t.Error("the old release is handed out")
	}
	time.Sleep(10 * time.Millisecond)
	os.WriteFile(filepath.Join(dir, release.ManifestName), []byte(`{"schema":"weft-release/1"}`), 0o644)
	if code, _ := get("/install"); code != 503 {
		t.Errorf("forged manifest: %d", code)
	}
}

func TestLine(t *testing.T) {
	m := &release.Manifest{Files: []release.File{
		{Name: "weft-linux-arm64", Program: "weft", OS: "linux", Arch: "arm64", Kind: "binary"},
		{Name: "weft-windows-amd64.exe", Program: "weft", OS: "windows", Arch: "amd64", Kind: "binary", SHA256: "0a"},
		{Name: "weft-windows-arm64.exe; calc", Program: "weft", OS: "windows", Arch: "arm64", Kind: "binary"},
		{Name: "weft-server-freebsd-amd64", Program: "weft-server", OS: "freebsd", Arch: "amd64", Kind: "binary"},
	}}
	o := Offer{Base: "https://h:8443", Pin: "sha256//x=", Manifest: m}
	for got, want := range map[string]string{
		o.Line("", "weft1abc"):                        "curl -fsSLk --pinnedpubkey sha256//x= https://h:8443/install | sh -s -- weft1abc",
		o.Line("k3v", "weft1abc"):                     "curl -fsSLk --pinnedpubkey sha256//x= https://h:8443/install/for/k3v | sh -s -- weft1abc",
		Offer{Base: "https://h"}.Line("", "weft1abc"): "curl -fsSL https://h/install | sh -s -- weft1abc",
		o.WindowsLine("amd64", "k3v", "weft1abc"):     `$f = "$env:TEMP\weft.exe"; curl.exe -fsSLk --pinnedpubkey sha256//x= -o $f https://h:8443/install/for/k3v/weft-windows-amd64.exe; if ((Get-FileHash $f).Hash -eq '0a') { 'weft1abc' | & $f install --token-file - } else { throw 'weft: that is not the program of this line; try again' }`,
		o.WindowsLine("arm64", "k3v", "weft1abc"):     "",
		o.WindowsLine("386", "k3v", "weft1abc"):       "",
	} {
		if got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
	if !o.Has("linux") || !o.Has("windows") || o.Has("darwin") || o.Has("freebsd") {
		t.Error("the systems are others")
	}
}

// What is fetched for a key says so, and only that.
func TestFetchedForAKey(t *testing.T) {
	dir := t.TempDir()
	r := New(dir, nil)
	t.Cleanup(r.Close)
	var seen []string
	h := r.Handler(func(*http.Request) string { return "https://weft.example:8443" }, func(string) string { return "" }, func(*http.Request) netip.Addr { return netip.MustParseAddr("203.0.113.9") },
		func(key string, program bool, from netip.Addr) {
			seen = append(seen, fmt.Sprint(key, " ", program, " ", from))
		})
	get := func(path string) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
		return w
	}
	if w := get("/install/for/k3v"); w.Code != 503 || len(seen) != 0 {
		t.Errorf("without a release: %d, %q", w.Code, seen)
	}
	released(t, dir, "1", map[string]string{"weft-linux-amd64": "program"})
	if w := get("/install/for/k3v"); w.Code != 200 || !strings.Contains(w.Body.String(), "BASE='https://weft.example:8443/install/for/k3v'") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if w := get("/install/for/k3v/weft-linux-amd64"); w.Code != 200 || w.Body.String() != "program" {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	get("/install/for/k3v/manifest.json")
	get("/install")
	get("/install/weft-linux-amd64")
	for _, bad := range []string{"/install/for/", "/install/for/a%27b", "/install/for/" + strings.Repeat("x", 65), "/install/for/k3v/..%2fsecret"} {
		if w := get(bad); w.Code != 404 {
			t.Errorf("%s: %d", bad, w.Code)
		}
	}
	if got := strings.Join(seen, ", "); got != "k3v false 203.0.113.9, k3v true 203.0.113.9, k3v false 203.0.113.9, k3v false 203.0.113.9" {
		t.Error(got)
	}
}

// A hostile manifest and address stay words in the script.
func TestScriptIsNotInjected(t *testing.T) {
	m := &release.Manifest{Version: "1'; rm -rf /; '", Files: []release.File{
		{Name: "x\nEND\nrm -rf /", Program: "weft", OS: "linux", Arch: "amd64", Kind: "binary"},
		{Name: "$(id)", Program: "weft", OS: "linux", Arch: "amd64", Kind: "binary"},
	}}
	s := Script(m, "https://h'; id; '\nid", "", "")
	if strings.Contains(s, "rm -rf /;") || strings.Contains(s, "$(id)") || strings.Contains(s, "\nid\n") {
		t.Error(s)
	}
	syntax(t, "sh", s)
}

func syntax(t *testing.T, shell, script string) {
	t.Helper()
	cmd := exec.Command(shell, "-n")
	cmd.Stdin = strings.NewReader(script)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%s -n: %v: %s", shell, err, out)
	}
}

// Every failure is one line with a cure.
func TestFailures(t *testing.T) {
	m := &release.Manifest{Version: "1", Files: []release.File{{Name: "weft-plan9-amd64", Program: "weft", OS: "plan9", Arch: "amd64", Kind: "binary", SHA256: strings.Repeat("0", 64)}}}
	run := func(args ...string) string {
		cmd := exec.Command("sh", append([]string{"-s", "--"}, args...)...)
		cmd.Stdin = strings.NewReader(Script(m, "https://127.0.0.1:1", "", ""))
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir()}
		out, err := cmd.CombinedOutput()
		if err == nil {
			t.Errorf("%q succeeded: %s", args, out)
		}
		return string(out)
	}
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"hello"}, "what is hello?"},
		{[]string{"--user", "weft1abc"}, "scripts/release --key FILE linux/"},
		{[]string{"--user", "--hostname"}, "wants a name"},
		{[]string{"--user", "--hostname", "a;b"}, "want letters"},
		{[]string{"--user", "--uninstall"}, "not installed"},
	} {
		if out := run(c.args...); !strings.Contains(out, c.want) || strings.Count(strings.TrimSpace(out), "\n") != 0 {
			t.Errorf("%q: %s", c.args, out)
		}
	}
	m.Files[0].OS = "linux"
	for _, arch := range []string{"386", "arm64", "armv7"} {
		f := m.Files[0]
		f.Arch = arch
		m.Files = append(m.Files, f)
	}
	if out := run("--user", "weft1abc"); !strings.Contains(out, "no route to the server, or it is down") {
		t.Error(out)
	}
}
