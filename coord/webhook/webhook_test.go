package webhook

import (
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"weft/coord/audit"
)

// TestVector: the vector in the documentation of the package is what Sign makes.
func TestVector(t *testing.T) {
	doc, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`With the secret (\S+), t=(\d+) and the body (\S+) it is\n//\n//\tv1=([0-9a-f]{64})\n`).FindSubmatch(doc)
	if m == nil {
		t.Fatal("there is no vector in doc.go")
	}
	at := time.Unix(1764500000, 0)
	if got := Sign([]string{string(m[1])}, at, m[3]); string(m[2]) != "1764500000" || got != "t=1764500000,v1="+string(m[4]) {
		t.Errorf("%s, documented %s", got, m[4])
	}
	if err := Verify(string(m[1]), "t=1764500000,v1="+string(m[4]), m[3], at); err != nil {
		t.Error(err)
	}
}

// TestReadme runs the line for openssl in README.md.
func TestReadme(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`(?m)^    \$ (printf .*openssl dgst.*)$`).FindSubmatch(readme)
	if m == nil {
		t.Fatal("README.md does not say how to check a signature")
	}
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Fatal("install openssl: scripts/test does")
	}
	cmd := exec.Command("sh", "-c", string(m[1]))
	cmd.Env = append(os.Environ(), "T=1764500000", `BODY={"schema":"event/1","op":"device.rename"}`, "SECRET=whsec_-AbC_0")
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	f := strings.Fields(string(out))
	want := Sign([]string{"whsec_-AbC_0"}, time.Unix(1764500000, 0), []byte(`{"schema":"event/1","op":"device.rename"}`))
	if len(f) == 0 || want != "t=1764500000,v1="+f[len(f)-1] {
		t.Errorf("%s prints %q, want %s", m[1], out, want)
	}
}

func TestSignature(t *testing.T) {
	now := time.Unix(1764500000, 0)
	body := []byte(`{"schema":"event/1"}`)
	both := Sign([]string{"whsec_new", "whsec_old"}, now, body)
	if strings.Count(both, "v1=") != 2 {
		t.Errorf("two secrets make %s", both)
	}
	for _, c := range []struct {
		secret, header string
		body           string
		after          time.Duration
		good           bool
	}{
		{"whsec_new", both, string(body), 0, true},
		{"whsec_old", both, string(body), 0, true},
		{"whsec_old", both, string(body), Tolerance, true},
		{"whsec_old", both, string(body), -Tolerance, true},
		{"whsec_old", both, string(body), Tolerance + time.Second, false},
		{"whsec_old", both, string(body), -Tolerance - time.Second, false},
		{"whsec_x", both, string(body), 0, false},
		{"whsec_new", both, string(body) + " ", 0, false},
		{"whsec_new", strings.Replace(both, "t=1", "t=2", 1), string(body), 0, false},
		{"whsec_new", "", string(body), 0, false},
		{"whsec_new", "t=1764500000", string(body), 0, false},
		{"whsec_new", "t=1764500000,v1=", string(body), 0, false},
		{"whsec_new", "t=1764500000,v1=zz", string(body), 0, false},
		{"whsec_new", "t=x," + both, string(body), 0, true}, // the last t counts, and is signed
		{"whsec_new", both + ",v2=future", string(body), 0, true},
	} {
		if err := Verify(c.secret, c.header, []byte(c.body), now.Add(c.after)); (err == nil) != c.good || err != nil && !errors.Is(err, ErrSignature) {
			t.Errorf("%s of %q after %s: %v", c.secret, c.header, c.after, err)
		}
	}
}

// TestWait: the attempts of a day are few, begin soon, and are spread.
func TestWait(t *testing.T) {
	if Wait(1, 0, 0) != 5*time.Second || Wait(2, 0, 0) != 10*time.Second || Wait(50, 0, 0) != MaxWait || Wait(1<<30, 0.999, 0) > MaxWait*5/4 {
		t.Errorf("%s, %s, %s, %s", Wait(1, 0, 0), Wait(2, 0, 0), Wait(50, 0, 0), Wait(1<<30, 0.999, 0))
	}
	if Wait(1, 0, time.Minute) != time.Minute || Wait(1, 0, 24*time.Hour) != MaxWait {
		t.Error("what the receiver asks for does not count, or without a bound")
	}
	var past time.Duration
	n := 0
	for past < GiveUp {
		n++
		d := Wait(n, 0.5, 0)
		if d < firstWait || d > MaxWait*5/4 {
			t.Fatalf("attempt %d after %s", n, d)
		}
		past += d
	}
	if n < 24 || n > 60 {
		t.Errorf("%d attempts in a day", n)
	}
}

func TestPatterns(t *testing.T) {
	ops := []string{"device.rename", "device.join", "webhook.test", "audit.refusals"}
	for _, c := range []struct {
		pattern string
		good    bool
		yes, no string
	}{
		{"*", true, "refused.device.rename", ""},
		{"device.*", true, "device.rename", "refused.device.rename"},
		{"device.rename", true, "device.rename", "device.renamed"},
		{"presence.*", true, PresenceOnline, "device.rename"},
		{"presence.offline", true, PresenceOffline, PresenceOnline},
		{"refused.*", true, "refused.device.join", "device.join"},
		{"refused.device.*", true, "refused.device.join", "device.join"},
		{"devices.*", false, "", ""},
		{"dev*", false, "", ""},
		{"device.", false, "", ""},
		{"", false, "", ""},
		{"**", false, "", ""},
		{"*.rename", false, "", ""},
		{"device.rename,device.join", false, "", ""},
	} {
		if err := CheckPattern(c.pattern, ops); (err == nil) != c.good {
			t.Errorf("%q: %v", c.pattern, err)
		}
		if c.yes != "" && !Matches([]string{c.pattern}, c.yes) || c.no != "" && Matches([]string{c.pattern}, c.no) {
			t.Errorf("%q is not for %q, or for %q", c.pattern, c.yes, c.no)
		}
	}
}

// TestBody: whatever is in a record, the body is one JSON value with every field, and the
// id is the record's alone.
func TestBody(t *testing.T) {
	r := audit.Record{Seq: 7, At: time.Unix(1764500000, 0), User: "a<b", Via: audit.API, Op: "device.rename", Kind: "device", ID: "x", Name: "pi", Before: json.RawMessage(`{"name":"a"}`), Count: 1}
	e := OfRecord("net", r, audit.Hash{1})
	b, err := e.Body()
	if err != nil {
		t.Fatal(err)
	}
	want := `{"schema":"event/1","id":"a7-0100000000000000","at":"2025-11-30T10:53:20.000Z","network":"net","op":"device.rename",` +
		`"actor":{"user":"a<b","user_id":"","role":"","via":"api","from":""},"target":{"kind":"device","id":"x","name":"pi"},"before":{"name":"a"},"after":null,"refused":"","count":1}`
	if string(b) != want {
		t.Errorf("%s\nwant %s", b, want)
	}
	if OfRecord("net", r, audit.Hash{2}).ID == e.ID {
		t.Error("another record with the same number has the same id")
	}
	r.Refused = "not allowed"
	if e := OfRecord("net", r, audit.Hash{1}); e.Op != "refused.device.rename" || e.Op != NameOf(r.Op, true) {
		t.Errorf("a refusal is %s", e.Op)
	}
	p := OfPresence("net", "p1", time.Unix(1764500000, 0), Target{"device", "x", "pi"}, false)
	if b, err := p.Body(); err != nil || !strings.Contains(string(b), `"op":"presence.offline"`) || !strings.Contains(string(b), `"before":{"online":true},"after":{"online":false}`) {
		t.Errorf("%s, %v", b, err)
	}
}

func TestTargets(t *testing.T) {
	own := []netip.Prefix{netip.MustParsePrefix("10.9.0.0/16"), netip.MustParsePrefix("fd12:3456:789a::/48")}
	allow := []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32"), netip.MustParsePrefix("192.168.1.0/24"), netip.MustParsePrefix("::1/128")}
	for _, c := range []struct {
		addr           string
		tls, allowed   bool // by itself; once it is in allow
		plain, further bool // without TLS
	}{
		{"203.0.113.7", true, true, false, false},
		{"2001:db8::1", true, true, false, false},
		{"192.168.1.5", true, true, false, true},
		{"192.168.2.5", true, true, false, false},
		{"172.16.0.1", true, true, false, false},
		{"fd99::1", true, true, false, false},
		{"127.0.0.1", false, true, false, true},
		{"127.0.0.2", false, false, false, false},
		{"::ffff:127.0.0.1", false, true, false, true},
		{"::1", false, true, false, true},
		{"0.0.0.0", false, false, false, false},
		{"::", false, false, false, false},
		{"169.254.169.254", false, false, false, false},
		{"fd00:ec2::254", false, false, false, false},
		{"fe80::1%eth0", false, false, false, false},
		{"224.0.0.1", false, false, false, false},
		{"ff02::1", false, false, false, false},
		{"100.64.0.5", false, false, false, false},
		{"100.127.255.255", false, false, false, false},
		{"100.100.100.200", false, false, false, false},
		{"10.9.1.1", false, false, false, false},
		{"fd12:3456:789a::5", false, false, false, false},
		{"64:ff9b::7f00:1", false, false, false, false}, // 127.0.0.1 in other clothes is not what was allowed
		{"64:ff9b::6440:5", false, false, false, false},
		{"64:ff9b::cb00:7107", true, true, false, false},
		{"2002:7f00:1::", false, false, false, false},
		{"2002:a09:101::", false, false, false, false},
		{"::7f00:1", false, false, false, false},
		{"::ffff:0:a9fe:a9fe", false, false, false, false},
	} {
		ip := netip.MustParseAddr(c.addr)
		for _, w := range []struct {
			t     Targets
			plain bool
			want  bool
		}{{Targets{Network: own}, false, c.tls}, {Targets{own, allow}, false, c.allowed}, {Targets{Network: own}, true, c.plain}, {Targets{own, allow}, true, c.further}} {
			if err := w.t.Check(ip, w.plain); (err == nil) != w.want {
				t.Errorf("%s, allowed %v, without TLS %v: %v", c.addr, w.t.Allow, w.plain, err)
			}
		}
	}
	for s, want := range map[string]string{
		"127.0.0.1": "127.0.0.1/32", "::ffff:127.0.0.1": "127.0.0.1/32", "192.168.1.7/24": "192.168.1.0/24", "::1": "::1/128", "fd00:1::/32": "fd00:1::/32",
		"": "", "localhost": "", "0.0.0.0/0": "", "::/0": "", "10.0.0.0/7": "", "fe80::1%eth0": "", "::ffff:127.0.0.1/128": "", "127.0.0.1/33": "",
	} {
		if p, err := ParseTarget(s); (err == nil) != (want != "") || err == nil && p.String() != want {
			t.Errorf("%q: %s, %v", s, p, err)
		}
	}
}

func TestURL(t *testing.T) {
	for s, good := range map[string]bool{
		"https://example.com/weft": true, "https://example.com:8443/weft?key=x": true, "https://192.168.1.5/": true, "https://[2001:db8::1]/": true,
		"http://example.com/": false, "ftp://example.com/": false, "https:///x": false, "https:example.com": false, "example.com": false, "": false,
		"https://example.com:0/": false, "https://192.168.1.5:0/": false, "https://example.com:65536/": false, "https://example.com:65535/": true, "https://example.com:/": true,
		"https://a:b@example.com/": false, "https://example.com/#x": false, "https://127.0.0.1/": false, "https://[::1]/": false, "https://[::ffff:127.0.0.1]/": false,
		"https://169.254.169.254/latest": false, "https://100.64.0.1/": false, "https://example.com/\n": false, "https://[fe80::1%25eth0]/": false,
		"https://example.com/" + strings.Repeat("x", MaxURL): false,
	} {
		if err := CheckURL(s, Targets{}); (err == nil) != good {
			t.Errorf("%.60q: %v", s, err)
		}
	}
	allow := Targets{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}}
	for s, good := range map[string]bool{"http://127.0.0.1:9000/": true, "http://example.com/": true, "http://192.168.1.5/": false, "https://127.0.0.1/": true} {
		if err := CheckURL(s, allow); (err == nil) != good {
			t.Errorf("%q: %v", s, err)
		}
	}
	if o := Origin("https://hooks.example:8443/services/T0/B0/secret?x=y"); o != "https://hooks.example:8443" {
		t.Error(o)
	}
}
