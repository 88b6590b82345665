//go:build e2e

package e2e

import (
	"encoding/binary"
	"fmt"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"
	"unicode/utf16"

	"weft/scripts/e2e/lab"
)

// TestTyped covers what people type and paste.
func TestTyped(t *testing.T) {
	m := lab.NewMesh(t, bin)
	m.DeviceHome.EchoTCP("127.0.0.1:7")
	t.Run("token files", func(t *testing.T) { testTokenFiles(t, m) })
	t.Run("names", func(t *testing.T) { testTypedNames(t, m) })
	t.Run("session", func(t *testing.T) { testSession(t, m) })
	t.Run("sign-in", func(t *testing.T) { testSignInLinks(t, m) })
}

// A token file as editors, mail programs and shells leave it.
func testTokenFiles(t *testing.T, m *lab.Mesh) {
	for i, c := range []struct {
		name string
		make func(token string) string
	}{
		{"Notepad, UTF-8", func(s string) string { return "\ufeff" + s + "\r\n" }},
		{"PowerShell, UTF-16", func(s string) string {
			var b []byte
			for _, u := range utf16.Encode([]rune("\ufeff" + s + "\r\n")) {
				b = binary.LittleEndian.AppendUint16(b, u)
			}
			return string(b)
		}},
		{"quoted, blank lines", func(s string) string { return "\n \"" + s + "\" \n\n" }},
		{"wrapped", func(s string) string { return s[:60] + "\n" + s[60:120] + "\r\n" + s[120:] + "\n" }},
	} {
		name := fmt.Sprintf("typed-%d", i)
		n := m.Node(m.LaptopHome.Namespace, name)
		n.Run("--token-file", m.WriteFile("typed-"+name, c.make(m.Server.NewKey("--tag", "device").Token)), "--proxy", "off", "--dns", "off")
		n.Must("wait", "--timeout", "20s")
		if !strings.Contains(n.Err(), "joined as "+name+".weft.internal, 100.") {
			t.Errorf("%s: it does not say as what it joined:\n%s", c.name, n.Err())
		}
		n.Stop()
	}
}

// Every program accepts a name that an owner may give, and the error for a mistyped one
// suggests a name.
func testTypedNames(t *testing.T, m *lab.Mesh) {
	lap := m.Laptop
	if r := m.Server.Admin("devices", "rename", "kitchen-pi", "Küche"); r.Code != 0 || !strings.Contains(r.Err, "renamed kitchen-pi to xn--kche-0ra (küche)") {
		t.Fatal(r)
	}
	m.Until(20*time.Second, "the laptop knows the new name", func() bool { return lap.Weft("ip", "xn--kche-0ra").Code == 0 })
	for _, name := range []string{"Küche", "KÜCHE.weft.internal.", "xn--kche-0ra", "XN--KCHE-0RA"} {
		if r := lap.Weft("ping", name, "-c", "1"); r.Code != 0 || !strings.Contains(r.Err, "1 sent, 1 received, 0% lost") {
			t.Errorf("ping: %v", r)
		}
		if r := lap.WeftInput("hello\n", "nc", name, "7"); r.Code != 0 || r.Out != "hello\n" {
			t.Errorf("nc: %v", r)
		}
		if r := lap.Weft("status", name); r.Code != 0 || !strings.Contains(r.Out, "xn--kche-0ra") {
			t.Errorf("status: %v", r)
		}
		if r := lap.Weft("dns", "query", name); r.Code != 0 {
			t.Errorf("dns query: %v", r)
		}
		if r := m.Server.Admin("devices", "list", "--search", name); strings.Count(r.Out, "\n") != 2 {
			t.Errorf("search: %v", r)
		}
	}
	// Programs send the letters as typed, through the proxy and to the resolver.
	if r := lap.Host.Run(lab.Nobody, "python3", "-c", `
import socket, sys
name = "Küche".encode()
s = socket.create_connection(("127.0.0.1", 1055), 10)
s.sendall(b"\x05\x01\x00"); assert s.recv(2) == b"\x05\x00"
s.sendall(b"\x05\x01\x00\x03" + bytes([len(name)]) + name + b"\x00\x07")
print("proxy", s.recv(10)[1])
q = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00" + bytes([len(name)]) + name + b"\x04weft\x08internal\x00\x00\x01\x00\x01"
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.settimeout(10)
u.sendto(q, ("127.0.0.1", 5335))
a = u.recv(512)
print("dns", a[3] & 15, a[7], a[12:12+len(q)-12] == q[12:])
`); r.Out != "proxy 0\ndns 0 1 True\n" {
		t.Errorf("letters as they are: %v", r)
	}
	if r := m.Server.Admin("devices", "rename", "Küche", "kitchen-pi"); r.Code != 0 {
		t.Fatal(r)
	}
	m.Until(20*time.Second, "the laptop knows the name again", func() bool { return strings.Contains(lap.Weft("status").Out, "kitchen-pi") })
	for _, args := range [][]string{{"ping", "kitchn-pi"}, {"ssh", "root@kitchn-pi"}, {"nc", "kitchn-pi", "80"}, {"wait", "kitchn-pi", "--timeout", "50s"}, {"ip", "kitchn-pi.weft.internal"}} {
		r := lap.Weft(args...)
		if r.Code != 5 || !strings.Contains(r.Err, `no device "kitchn-pi"`) || !strings.Contains(r.Err, "did you mean kitchen-pi?") {
			t.Errorf("%v", r)
		}
		oneLine(t, r)
	}
	if r := curl(lap, "--proxy", "http://"+lab.Proxy, "http://kitchn-pi/"); !strings.Contains(r.Out, "did you mean kitchen-pi?") {
		t.Errorf("the proxy: %v", r)
	}
}

// Programs without the session's variables find a daemon that a login session started,
// and do not use a file that another user has planted.
func testSession(t *testing.T, m *lab.Mesh) {
	at := m.LaptopHome.Namespace
	home, session := m.Mkdir("home"), m.Mkdir("session")
	if err := os.Chmod(session, 0o700); err != nil {
		t.Fatal(err)
	}
	env := func(extra ...string) []string {
		return append([]string{"env", "-u", "XDG_RUNTIME_DIR", "-u", "XDG_STATE_HOME", "-u", "WEFT_SOCKET", "HOME=" + home}, extra...)
	}
	run := func(as lab.User, args ...string) lab.Result { return at.Run(as, args...) }
	daemon := at.Start(lab.Nobody, append(env("XDG_RUNTIME_DIR="+session), "weft", "run", "--proxy", "off", "--dns", "off")...)
	m.Until(10*time.Second, "the session's daemon answers", func() bool {
		return run(lab.Nobody, append(env("XDG_RUNTIME_DIR="+session), "weft", "status")...).Code == 0
	})
	for _, vars := range [][]string{{}, {"XDG_RUNTIME_DIR=/run/user/0"}, {"XDG_RUNTIME_DIR="}} {
		if r := run(lab.Nobody, append(env(vars...), "weft", "status")...); r.Code != 0 || !strings.Contains(r.Out, "not joined") {
			t.Errorf("without the session's variables: %v", r)
		}
	}
	// A program that replaced the socket gets no request.
	if err := os.Chown(session+"/weft/weft.sock", 0, 0); err != nil {
		t.Fatal(err)
	}
	if r := run(lab.Nobody, append(env(), "weft", "status")...); r.Code != 3 {
		t.Errorf("another user's socket: %v", r)
	}
	daemon.Stop()

	// Root's daemon: a user without access learns how to get it, and no other daemon is
	// used instead.
	root := m.Node(at, "")
	root.As = lab.Root
	root.Run("--proxy", "off", "--dns", "off")
	r := run(lab.Nobody, "weft", "doctor", "--socket", root.Sock)
	if r.Code != 1 || !strings.Contains(r.Out, "belongs to another user") || !strings.Contains(r.Out, "sudo") || strings.Contains(r.Out, "weft run") {
		t.Errorf("doctor at another user's daemon: %v", r)
	}
	root.Stop()
}

// The first link also works at the server's own address, where a person at home opens
// it.
func testSignInLinks(t *testing.T, m *lab.Mesh) {
	var lines []string
	for line := range strings.Lines(m.Server.Out()) {
		key, _, _ := strings.Cut(line, " ")
		lines = append(lines, key)
	}
	if got := strings.Join(lines, " "); got != "console token public fingerprint" {
		t.Fatalf("the server has printed %s", got)
	}
	r := m.Server.Admin("login-link", "--json")
	link, public := between(r.Out, `"url": "`, `"`), between(r.Out, `"public_url": "`, `"`)
	l, err := url.Parse(link)
	if err != nil || l.Host != m.Server.Console || public != m.Server.URL+l.RequestURI() {
		t.Fatalf("%v", r)
	}
	if len(between(r.Out, `"fingerprint": "`, `"`)) != 95 {
		t.Errorf("fingerprint: %v", r)
	}
	if r := m.LaptopHome.Run(lab.Nobody, "curl", "-sk", "-o", "/dev/null", "-w", "%{http_code}", "--max-time", "10", public); r.Out != "200" {
		t.Errorf("opened from home: %v", r)
	}
	r = m.Server.Admin("login-link")
	if strings.Count(r.Out, "\n") != 1 || !strings.Contains(r.Err, m.Server.URL+"/welcome?link=") || !strings.Contains(r.Err, "SHA-256 fingerprint") {
		t.Errorf("login-link: %v", r)
	}
}

// between is the whitespace between two words.
func between(s, before, after string) string {
	_, s, _ = strings.Cut(s, before)
	s, _, _ = strings.Cut(s, after)
	return s
}
