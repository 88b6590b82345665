package main

import (
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"weft/cmd/internal/cli/clitest"
	"weft/coord/ops"
	"weft/coord/store"
	"weft/overlay/api"
)

// TestWordsOfMistakes: every mistake is one line in words of the command line.
func TestWordsOfMistakes(t *testing.T) {
	data := newData(t)
	t.Setenv("WEFT_DATA", data)
	for _, c := range []struct {
		args string
		code int
		want string
	}{
		{"stauts", 2, `unknown command "stauts" for "weft-server"; see: weft-server --help`},
		{"devcies", 2, `did you mean devices?`},
		{"devices lst", 2, `unknown command "lst" for "weft-server devices"; did you mean list? see: weft-server devices --help`},
		{"dns", 2, "name a verb: aliases, "},
		{"keys show nosuch", 5, `key "nosuch": not found; see: weft-server keys list`},
		{"keys revoke nosuch", 5, `key "nosuch": not found; see: weft-server keys list`},
		{"keys create --expires x", 2, `--expires "x": want a time such as`},
		{"keys create --reusable=x", 2, `--reusable "x": want true or false; see: weft-server keys create --help`},
		{"keys create --user nosuch", 5, `user "nosuch": not found; see: weft-server users list`},
		{"devices approve BCDFG", 2, "a code has 10 letters and digits"},
		{"devices approve BCDFG-HJKLM --yes", 5, "request with this code: not found; a code is good for 10 minutes: compare it with the screen of the device, or run weft up there again"},
		{"devices deny nosuch", 5, `request "nosuch": not found; see: weft-server devices waiting`},
		{"devices --online --offline", 2, "no device is both"},
		{"devices list --filter colour:red", 2, `there is no filter "colour:"; use is, tag,`},
		{"devices list --sort colour", 2, `sort: colour: devices are sorted by name,`},
		{"devices show nosuch", 5, `device "nosuch": not found; see: weft-server devices list`},
		{"devices edit pi", 2, "nothing to change: give --tag, --no-tags or --user"},
		{"devices edit pi --tag x --no-tags", 2, "exclude each other"},
		{"devices edit nosuch --tag x", 5, `device "nosuch": not found; see: weft-server devices list`},
		{"relays remove nosuch", 5, `relay "nosuch": not found; see: weft-server relays list`},
		{"login-link --user nosuch", 5, `user "nosuch": not found; see: weft-server users list`},
		{"policy apply " + data + "/none", 1, "read the policy " + data + "/none: no such file"},
		{"policy check /dev/null", 2, "it is empty"},
		{"policy check words_test.go", 2, "words_test.go:1:1: this is not JSON"},
		{"policy show x", 2, `"x": want the number of a policy; see: weft-server policy history`},
		{"policy show 7", 5, "policy 7 is not among the last 50: not found; see: weft-server policy history"},
		{"policy revert 7", 5, "policy 7 is not among the last 50: not found; see: weft-server policy history"},
		{"policy diff " + data + "/none", 1, "no such file"},
		{"can nobody pi:22", 5, `no person and no device "nobody": not found; see: weft-server users list`},
		{"can admin pi:22", 5, `device "pi": not found`},
		{"can admin pi", 2, `"pi": want DEVICE:PORT, such as kitchen-pi:22`},
		{"can tag:x pi:22", 2, "tag:x: want a person or a device"},
		{"reach nobody", 5, `no person and no device "nobody": not found`},
		{"reach admin --to pi", 2, "name WHO, or a device with --to, and not both"},
		{"reach --to pi", 5, `device "pi": not found`},
		{"reach", 2, "from: name a person or a device"},
		{"can admin", 2, "usage: weft-server can WHO DEVICE:PORT"},
		{"can --quiet nobody pi:22", 5, `no person and no device "nobody": not found; see: weft-server users list`},
		{"can --quiet --json admin pi:22", 2, "--quiet and --json exclude each other"},
		{"keys create --expires 999d", 2, "1 minute to 366 days, not 999 days"},
		{"tokens create admin --expires 36000h", 2, "service"},
		{"audit list --user nosuch", 5, `user "nosuch": not found; see: weft-server users list`},
		{"audit export --user nosuch", 5, `user "nosuch": not found`},
		{"audit list --device nosuch", 5, `nothing was ever called "nosuch" here`},
		{"audit list --since x", 2, `--since "x": want how long ago, such as 24h or 7d`},
		{"audit list --until 2026-13-01", 2, `--until "2026-13-01": want how long ago`},
		{"audit list --limit -1", 2, "--limit -1: want 0"},
		{"audit export --format xml", 2, `--format "xml": want ndjson or rfc5424`},
		{"audit export --json --format rfc5424", 2, "exclude each other"},
		{"audit verify --head " + data + "/none", 2, "read " + data + "/none: no such file"},
		{"audit verify --head /dev/null", 2, "--head /dev/null: not the head of an audit"},
		{"audit verify --head " + strings.Repeat("00", 100), 2, "--head: not the head of an audit"},
		{"users create eve --role boss", 2, `--role "boss": want owner, admin, operator, auditor or member`},
		{"users edit admin --role member", 2, "admin is the only owner of this network; make another user an owner first (weft-server users edit NAME --role owner)"},
		{"users suspend admin", 2, "admin is the only owner of this network"},
		{"users delete admin", 2, "admin is the only owner of this network"},
		{"users delete admin --devices-to x --delete-devices", 2, "--devices-to and --delete-devices exclude each other"},
		{"groups add nosuch admin", 5, `group "nosuch": not found; see: weft-server groups list`},
		{"groups create a:b", 2, `group "a:b": want 1 to 64 letters`},
		{"groups add family", 2, "usage: weft-server groups add GROUP NAME..."},
		{"users invite a:b", 2, `user name "a:b": want 1 to 64 letters`},
		{"users invite eve --expires 60d", 2, "an invitation can be valid for 1 minute to 30 days, not 60 days"},
		{"users invite eve --role boss", 2, `--role "boss": want owner`},
		{"users revoke-invitation nosuch", 5, `user "nosuch": not found; see: weft-server users list`},
		{"users suspend nosuch", 5, `user "nosuch": not found; see: weft-server users list`},
		{"users resume nosuch", 5, `user "nosuch": not found; see: weft-server users list`},
		{"users edit admin --role boss", 2, `--role "boss": want owner`},
		{"webhooks show nosuch", 5, `webhook "nosuch": not found; see: weft-server webhooks list`},
		{"webhooks test nosuch", 5, `webhook "nosuch": not found; see: weft-server webhooks list`},
		{"webhooks create", 2, "usage: weft-server webhooks create URL"},
		{"webhooks create example.com", 2, "want https://HOST/PATH"},
		{"webhooks create http://192.168.1.5/", 2, "--allow-target"},
		{"webhooks create https://x.example:0/", 2, "port 0: want 1 to 65535"},
		{"webhooks create https://127.0.0.1/", 2, "127.0.0.1 is a loopback address; the network's owner can allow this address for the webhook (--allow-target 127.0.0.1, or the allowed addresses in the console)"},
		{"webhooks create https://x.example/ --event devices.*", 2, `event "devices.*": this matches no event; want *, a kind with .* (audit, crl, device,`},
		{"webhooks create https://x.example/ --allow-target localhost", 2, `target "localhost": want an address or a range`},
		{"webhooks edit x --enable --disable", 2, "exclude each other"},
		{"webhooks edit x", 2, "say what to change: --url, "},
		{"webhooks rotate x --keep soon", 2, `--keep "soon": want a time such as 1h`},
		{"webhooks rotate x --keep 0d", 5, "not found"},
		{"audit retention set 3x", 2, `"3x": want a time such as 90d`},
		{"audit retention set 5h", 2, "the audit can keep records for a day to a hundred years, or for ever"},
		{"audit retention nonsense", 2, `unknown command "nonsense"`},
		{"audit trim", 2, "name the records to remove: --before 365d"},
		{"audit trim --before 3x", 2, `--before "3x": want how long ago`},
		{"audit trim --before 2h", 2, "records of the last 24 hours cannot be removed"},
		{"audit introductions set on", 2, "name the tag of the devices: --tag T"},
		{"audit introductions set --tag camera yes", 2, `"yes": want on or off`},
		{"audit introductions set --tag a/b on", 2, `tag "a/b": want letters`},
		{"audit introductions --device nosuch", 5, `device "nosuch": not found; see: weft-server devices list`},
		{"audit introductions --limit -1", 2, "--limit -1: want 0"},
		{"dns records add www A 1.2.3.4 --ttl x", 2, `--ttl "x": want a whole number`},
		{"dns routes add x y", 2, ""},
		{"dns set ttl=x", 2, "want a number"},
		{"dns preview kitchen-pi FOO", 2, "unknown record type"},
		{"backup --key-file " + data + "/none/k", 1, "write " + data + "/none/k: no such file or directory; check the path"},
		{"restore --key-file nosuch x", 1, ""},
		{"serve --listen x", 2, "--listen \"x\": want ADDR:PORT"},
		{"serve --listen :99999", 2, "up to 65535"},
		{"serve --console x", 2, "--console"},
		{"serve --console 8.8.8.8:1", 2, "must be on loopback"},
		{"serve --stun x --listen 127.0.0.1:0 --console off --url https://127.0.0.1:1", 2, "--stun"},
		{"serve --url https://a%b --listen 127.0.0.1:0 --console off --stun off", 2, "want https://HOST:PORT"},
		{"serve --url https://a:99999 --listen 127.0.0.1:0 --console off --stun off", 2, "want https://HOST:PORT"},
		{"serve --url https://[::1 --listen 127.0.0.1:0 --console off --stun off", 2, "want https://HOST:PORT"},
		{"serve --suffix a..b --listen 127.0.0.1:0 --console off --stun off", 2, "want a DNS name"},
		{"serve --ipv4 10.0.0.0/31 --listen 127.0.0.1:0 --console off --stun off", 2, "8 to 30 bits"},
		{"serve --ipv4 10.0.0.0/33", 2, "want a range such as"},
		{"serve --data /dev/null/x --listen 127.0.0.1:0 --console off --stun off", 1, "not a directory; choose another name"},
		{"devices --data /dev/null", 1, "not a directory; name that of the server"},
		{"completion foo", 2, "see: weft-server completion --help"},
		{"completion", 2, "weft-server completion bash"},
		{"relay --token hello", 2, "--token: that is not a token; a token is one word that starts with weft1"},
		{"relay --token-file " + data + "/none", 1, "read token file " + data + "/none: no such file"},
		{"relay --token weft1x --token-file y", 2, "give the token once"},
		{"--nosuch", 2, "unknown flag: --nosuch"},
	} {
		code, out, errs := verb(t, strings.Fields(c.args)...)
		last := errs[strings.LastIndexByte(strings.TrimSuffix(errs, "\n"), '\n')+1:] // a warning may come before
		if code != c.code || out != "" || !strings.HasPrefix(last, "weft-server: ") || !strings.Contains(last, c.want) || clitest.Raw(last) {
			t.Errorf("%s: exit %d, want %d and %q:\n%s%s", c.args, code, c.code, c.want, out, errs)
		}
	}
}

// TestSilentVerbs: who changes something says so on standard error, and prints
// as JSON what came of it.
func TestSilentVerbs(t *testing.T) {
	data := newData(t)
	t.Setenv("WEFT_DATA", data)
	_, out, _ := verb(t, "keys", "create", "--json")
	var k ops.KeyCreated
	if err := json.Unmarshal([]byte(out), &k); err != nil {
		t.Fatal(err)
	}
	for args, want := range map[string]string{
		"keys revoke " + k.ID:                  "revoked the key " + k.ID,
		"dns set ttl=30":                       "set ttl=30; devices fetch it",
		"dns records add www A 192.0.2.1":      "added the record: www A 192.0.2.1",
		"dns nameservers set 192.0.2.53":       "set the nameservers: 192.0.2.53",
		"dns nameservers clear":                "cleared the nameservers",
		"dns search set corp.example":          "set the search domains: corp.example",
		"dns routes add corp.example 10.0.0.5": "added the route: corp.example 10.0.0.5",
	} {
		code, out, errs := verb(t, strings.Fields(args)...)
		if code != 0 || out != "" || !strings.HasPrefix(errs, want) || strings.Count(errs, "\n") != 1 {
			t.Errorf("%s: exit %d\n%s%s", args, code, out, errs)
		}
	}
}

func TestVersionFlag(t *testing.T) {
	t.Setenv("WEFT_DATA", t.TempDir())
	_, want, _ := verb(t, "version")
	if code, out, errs := verb(t, "--version"); code != 0 || out != want || errs != "" {
		t.Errorf("exit %d: %q %q", code, out, errs)
	}
	if code, out, _ := verb(t); code != 0 || !strings.Contains(out, "weft-server serve") {
		t.Errorf("exit %d: %q", code, out)
	}
}

func TestDeviceFilter(t *testing.T) {
	seen := time.Now()
	addr := netip.MustParseAddr
	list := []ops.Device{
		{Node: store.Node{Name: "kitchen-pi", Hostname: "raspberrypi", IPv4: addr("100.64.0.1"), User: "alice", Tags: []string{"device", "pi"}, Software: "1.2.0"},
			FQDN: "kitchen-pi.weft.internal", Title: "kitchen-pi", Online: true},
		{Node: store.Node{Name: "xn--kche-0ra", IPv4: addr("100.64.0.2"), User: "bob", Tags: []string{"sensor"}, Software: "1.10.0"},
			FQDN: "xn--kche-0ra.weft.internal", Title: "küche", LastSeen: &seen},
		{Node: store.Node{Name: "laptop", IPv4: addr("100.64.0.12"), User: "bob", Software: "dev-0123"},
			FQDN: "laptop.weft.internal", Title: "laptop", Online: true, Aliases: []ops.AliasInfo{{Alias: api.Alias{Name: "old-mac"}}}},
	}
	for _, c := range []struct {
		w    deviceFilter
		want string
	}{
		{deviceFilter{}, "kitchen-pi xn--kche-0ra laptop"},
		{deviceFilter{online: true}, "kitchen-pi laptop"},
		{deviceFilter{offline: true}, "xn--kche-0ra"},
		{deviceFilter{tags: []string{"pi", "tag:sensor"}}, "kitchen-pi xn--kche-0ra"},
		{deviceFilter{user: "bob", online: true}, "laptop"},
		{deviceFilter{search: "Küche"}, "xn--kche-0ra"},
		{deviceFilter{search: " KÜCHE.weft.internal. "}, "xn--kche-0ra"},
		{deviceFilter{search: "OLD-"}, "laptop"},
		{deviceFilter{search: "100.64.0.1"}, "kitchen-pi laptop"},
		{deviceFilter{search: "raspberry"}, "kitchen-pi"},
		{deviceFilter{below: "1.10"}, "kitchen-pi laptop"},
		{deviceFilter{below: "v1.2.0"}, "laptop"},
		{deviceFilter{search: "nothing"}, ""},
	} {
		var got []string
		for _, d := range c.w.of(slices.Clone(list)) {
			got = append(got, d.Name)
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%+v: %v, want %s", c.w, got, c.want)
		}
	}
	ordered := []string{"dev", "1.1", "1.2.0-rc1", "1.2.0-rc2", "1.2", "1.2.1", "1.9.0", "1.10.0", "2"}
	for i, a := range ordered {
		for j, b := range ordered {
			if got := ops.CompareVersions(a, b); got != min(max(i-j, -1), 1) {
				t.Errorf("%s against %s: %d", a, b, got)
			}
		}
	}
	if ops.CompareVersions("1.2.0", "v1.2+dirty") != 0 {
		t.Error("the same version in other words")
	}
}

// TestFilterNotFromEnv: a variable for another verb's flag hides no device.
func TestFilterNotFromEnv(t *testing.T) {
	t.Setenv("WEFT_DATA", newData(t))
	t.Setenv("WEFT_ONLINE", "yes, please")
	t.Setenv("WEFT_TAG", "camera")
	if code, _, errs := verb(t, "devices", "list"); code != 0 {
		t.Errorf("exit %d: %s", code, errs)
	}
	if code, _, errs := verb(t, "keys", "create"); code != 0 {
		t.Errorf("exit %d: %s", code, errs)
	}
	if _, out, _ := verb(t, "keys", "list"); !strings.Contains(out, "camera") {
		t.Errorf("the variable does not count where it is meant: %s", out)
	}
}

// TestSignIn: a link on loopback is given by the server's own address too, with
// the fingerprint that a browser shows, where somebody could be elsewhere.
func TestSignIn(t *testing.T) {
	own := [][]byte{[]byte("certificate")}
	for _, c := range []struct {
		link   string
		urls   []string
		own    [][]byte
		public string
		finger bool
	}{
		{"http://127.0.0.1:8080/welcome?link=x", []string{"https://203.0.113.7:8443"}, own, "https://203.0.113.7:8443/welcome?link=x", true},
		{"http://127.0.0.1:8080/welcome?link=x", []string{"https://127.0.0.1:8443", "https://weft.example"}, own, "https://weft.example/welcome?link=x", true},
		{"http://127.0.0.1:8080/welcome?link=x", []string{"https://weft.example"}, append(own, nil), "https://weft.example/welcome?link=x", false},
		{"http://127.0.0.1:8080/welcome?link=x", []string{"https://127.0.0.1:8443", "https://[::1]:1", "https://localhost:2"}, own, "", false},
		{"https://203.0.113.7:8443/welcome?link=x", []string{"https://203.0.113.7:8443"}, own, "", true},
		{"http://127.0.0.1:8080/welcome?link=x", nil, own, "", false},
	} {
		s := newSignIn(c.link, c.urls, c.own)
		if s.link != c.link || s.public != c.public || (s.fingerprint != "") != c.finger {
			t.Errorf("%s, %v: %+v", c.link, c.urls, s)
		}
	}
	var b strings.Builder
	s := newSignIn("http://127.0.0.1:8080/welcome?link=x", []string{"https://203.0.113.7:8443"}, own)
	if err := s.greet(&b, "weft1abc"); err != nil || !regexp.MustCompile(`^console http://127\.0\.0\.1:8080/welcome\?link=x\ntoken weft1abc\npublic https://203\.0\.113\.7:8443/welcome\?link=x\nfingerprint [0-9A-F]{2}(:[0-9A-F]{2}){31}\n$`).MatchString(b.String()) {
		t.Errorf("%q, %v", b.String(), err)
	}
}

// TestRelayToken takes a token as editors and mail programs leave it.
func TestRelayToken(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "token")
	if err := os.WriteFile(file, []byte("\xff\xfew\x00e\x00f\x00t\x001\x00a\x00\r\x00\n\x00"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		o    relayOptions
		want string
	}{
		{relayOptions{tokenFile: file}, "weft1a"}, {relayOptions{token: " \"weft1a\"\n"}, "weft1a"}, {relayOptions{tokenFile: "-"}, "weft1in"}, {relayOptions{}, ""},
	} {
		if got, err := c.o.readToken(strings.NewReader("weft1\nin\n"), dir); got != c.want || err != nil {
			t.Errorf("%+v: %q, %v", c.o, got, err)
		}
	}
	o := relayOptions{tokenFile: filepath.Join(dir, "gone")}
	if _, err := o.readToken(nil, dir); err == nil {
		t.Error("a file that is not there will do")
	}
	if err := os.WriteFile(filepath.Join(dir, "relay.json"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := o.readToken(nil, dir); got != "" || err != nil {
		t.Errorf("a relay that has joined wants it: %v", err)
	}
}
