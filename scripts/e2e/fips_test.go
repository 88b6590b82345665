//go:build e2e

package e2e

import (
	"encoding/json"
	"io"
	"net/http/cookiejar"
	"net/url"
	"strings"
	"testing"
	"time"

	"weft/scripts/e2e/lab"
)

// A network that enters FIPS mode, enforced: what was made before is refused with the cure,
// and the cures work. Nodes have tunnels with nodes that have AES, and refuse others.
func TestFIPS(t *testing.T) {
	t.Parallel()
	l := lab.New(t, bin)
	l.FIPS = "off"
	host := l.Host("server")
	s := l.Serve(host, ":8443", "https://"+host.Addr+":8443")
	m := lab.MeshOf(l, s)
	const old, fresh = "correct horse battery staple", "a new one that is long enough"
	key, before, after := l.WriteFile("backup.key", "correct horse battery staple\n"), l.Mkdir("before")+"/weft.backup", l.Mkdir("after")+"/weft.backup"

	signIn := func(path string, form url.Values, code int, says string) {
		t.Helper()
		c := host.HTTP("")
		c.Jar, _ = cookiejar.New(nil)
		res, err := c.PostForm("http://"+s.Console+path, form)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		b, _ := io.ReadAll(res.Body)
		if res.StatusCode != code || !strings.Contains(string(b), says) {
			t.Errorf("%s: %d, want %d and %q\n%s", path, res.StatusCode, code, says, b)
		}
	}
	choose := func(link, password string) {
		t.Helper()
		u, err := url.Parse(strings.TrimSpace(link))
		if err != nil {
			t.Fatal(err)
		}
		signIn("/welcome", url.Values{"link": {u.Query().Get("link")}, "password": {password}}, 200, "Devices")
	}
	audit := func(program string, r lab.Result) (doc struct {
		Schema, Mode, Program string
		Running               bool
		Findings              []struct{ Code, Level string }
	}, errors string) {
		t.Helper()
		if err := json.Unmarshal([]byte(r.Out), &doc); err != nil || doc.Schema != "fips/1" || doc.Program != program || !doc.Running {
			t.Errorf("doctor --fips --json: %v: %v", err, r)
		}
		for _, f := range doc.Findings {
			if f.Level == "error" && f.Code != "module" { // which depends on the build
				errors += f.Code + " "
			}
		}
		return doc, strings.TrimSpace(errors)
	}

	choose(s.ConsoleURL, old)
	if r := s.Admin("backup", "--key-file", key, "--output", before); r.Code != 0 {
		t.Fatal(r)
	}
	if doc, errs := audit("weft-server", s.Admin("doctor", "--fips", "--json")); doc.Mode != "off" || errs != "mode" {
		t.Errorf("before: %+v", doc)
	}
	s.Stop()

	l.FIPS = "only"
	s.Start()
	if doc, errs := audit("weft-server", s.Admin("doctor", "--fips", "--json")); doc.Mode != "only" || errs != "passwords" {
		t.Errorf("with a password from before: %+v", doc)
	}
	signIn("/sign-in", url.Values{"name": {"admin"}, "password": {old}}, 422, "weft-server login-link")
	signIn("/sign-in", url.Values{"name": {"nobody"}, "password": {old}}, 422, "weft-server login-link")
	r := s.Admin("login-link")
	if r.Code != 0 {
		t.Fatal(r)
	}
	choose(r.Out, fresh)
	signIn("/sign-in", url.Values{"name": {"admin"}, "password": {fresh}}, 200, "Devices")
	if doc, errs := audit("weft-server", s.Admin("doctor", "--fips", "--json")); errs != "" {
		t.Errorf("with a new password: %+v", doc)
	}

	m.Device.Up(s.NewKey().Token)
	m.Laptop.Up(s.NewKey().Token)
	m.Device.Must("wait")
	var st struct {
		FIPS   struct{ Mode, Module string }
		Health []struct{ Code string }
	}
	if err := json.Unmarshal([]byte(m.Laptop.Must("status", "--json")), &st); err != nil || st.FIPS.Mode != "only" || len(st.Health) != 0 {
		t.Errorf("status: %+v, %v", st, err)
	}
	if out := m.Laptop.Must("status"); !strings.Contains(out, "FIPS mode enforced, Go Cryptographic Module ") {
		t.Errorf("status:\n%s", out)
	}
	fetch(t, m.Laptop, "http://kitchen-pi/", 10*time.Second)
	m.Device.Must("ping", "-c", "1", "laptop")
	if out := m.Laptop.Must("status", "--json", "kitchen-pi"); !strings.Contains(out, `"suite": "aes"`) || !strings.Contains(out, `"key_exchange": "SecP256r1MLKEM768"`) {
		t.Errorf("status:\n%s", out)
	}
	if out := m.Laptop.Weft("doctor", "--fips").Out; !strings.Contains(out, "kitchen-pi: keys SecP256r1MLKEM768, packets AES-256-GCM, nonces of the module") {
		t.Errorf("doctor --fips:\n%s", out)
	}
	if doc, errs := audit("weft", m.Laptop.Weft("doctor", "--fips", "--json")); doc.Mode != "only" || errs != "" {
		t.Errorf("laptop: %+v", doc)
	}
	// A node that may use WireGuard only carries no packets, and says so.
	m.Laptop.Stop()
	m.Laptop.Run("--suite", "wireguard")
	m.Laptop.Must("wait", "--timeout", "20s")
	for _, verb := range [][]string{{"ping", "-c", "1", "kitchen-pi"}, {"nc", "kitchen-pi", "80"}} {
		if r := m.Laptop.Weft(verb...); r.Code != 6 || !strings.Contains(r.Err, "packets are not in FIPS mode here") || !strings.Contains(r.Err, "--suite wireguard") {
			t.Errorf("want exit code 6 and why: %v", r)
		} else {
			oneLine(t, r)
		}
	}
	if doc, errs := audit("weft", m.Laptop.Weft("doctor", "--fips", "--json")); doc.Mode != "only" || errs != "packets" {
		t.Errorf("laptop with WireGuard: %+v", doc)
	}
	m.Laptop.Stop()
	m.Laptop.Run()
	m.Laptop.Must("wait", "--timeout", "20s")

	if r := s.Admin("backup", "--key-file", key, "--output", after); r.Code != 0 {
		t.Fatal(r)
	}
	restore := func(file, to string) lab.Result {
		return host.Run(lab.Nobody, "weft-server", "restore", "--key-file", key, "--data", l.Mkdir("restored")+"/"+to, file)
	}
	if r := restore(before, "a"); r.Code == 0 || !strings.Contains(r.Err, "GODEBUG=fips140=off") {
		t.Errorf("a backup from before: %v", r)
	} else {
		oneLine(t, r)
	}
	if r := restore(after, "b"); r.Code != 0 {
		t.Error(r)
	}
	l.FIPS = "off"
	if r := restore(before, "c"); r.Code != 0 {
		t.Error(r)
	}
	if r := restore(after, "d"); r.Code != 0 {
		t.Error(r)
	}

	// Nodes outside FIPS mode stay members beside those in it: with AES they have tunnels
	// with them, without it neither side makes one.
	den := l.Node(l.Home("den").Namespace, "den-pi")
	den.Up(s.NewKey().Token, "--suite", "aes")
	fetch(t, den, "http://kitchen-pi/", 10*time.Second)
	m.Laptop.Must("ping", "-c", "1", "den-pi")
	den.Stop()
	den.Run("--suite", "wireguard")
	den.Must("wait", "--timeout", "20s")
	for from, to := range map[*lab.Node]string{den: "kitchen-pi", m.Laptop: "den-pi"} {
		if r := from.Weft("ping", "-c", "1", to); r.Code != 6 || !strings.Contains(r.Err, "no tunnel with "+to+": ") || !strings.Contains(r.Err, "demands AES") {
			t.Errorf("want exit code 6 and why: %v", r)
		}
	}
}
