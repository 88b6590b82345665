//go:build e2e

package e2e

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"weft/overlay/cert"
	"weft/scripts/e2e/lab"
)

// Invalid tokens are refused with one line that says why, and change nothing.
func TestTokens(t *testing.T) {
	t.Parallel()
	m := lab.NewMeshNoNodes(t, bin)
	m.Device.Join(m.Server.Token)
	expired := m.Server.NewKey("--expires", "1m") // the shortest possible
	revoked := m.Server.NewKey()
	if r := m.Server.Admin("keys", "revoke", revoked.ID); r.Code != 0 {
		t.Fatal(r)
	}
	good := m.Server.NewKey()
	parsed, err := cert.ParseToken(good.Token)
	if err != nil {
		t.Fatal(err)
	}
	parsed.Secret = []byte("sixteen bytes that nobody made!!")
	wrong := parsed.String()
	m.Laptop.Run()
	for _, c := range []struct {
		name, token string
		code        []int
		says        string
	}{
		{"wrong", wrong, []int{1, 6}, "does not know|unknown"},
		{"used", m.Server.Token, []int{1, 6}, "used"},
		{"revoked", revoked.Token, []int{1, 6}, "revoked"},
		{"truncated", good.Token[:len(good.Token)-7], []int{1, 2}, "truncated|incomplete|cut|mistyped|token"},
		{"typo", swap(good.Token), []int{1, 2}, "token"},
		{"empty", "", []int{1, 2}, "no token"},
		{"no token at all", "hello", []int{1, 2}, "token"},
		{"a page", strings.Repeat("x", 100_000), []int{1, 2}, "token"},
		{"expired", expired.Token, []int{1, 6}, "expired"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.name == "expired" {
				time.Sleep(time.Until(expired.Expires) + 100*time.Millisecond)
			}
			r := m.Laptop.WeftInput(c.token+"\n", "up", "-")
			ok := false
			for _, code := range c.code {
				ok = ok || r.Code == code
			}
			if !ok || !regexp.MustCompile("(?i)"+c.says).MatchString(r.Err) {
				t.Errorf("want exit code %v and %q: %v", c.code, c.says, r)
			}
			oneLine(t, r)
			if len(c.token) > 60 && strings.Contains(r.Err, c.token[30:60]) {
				t.Errorf("the token is in the message: %v", r)
			}
			if st := m.Laptop.Status(); st.State != "unjoined" {
				t.Errorf("state %q", st.State)
			}
			if c.token == "" {
				return
			}
			// The daemon with the same token prints the same and ends.
			n := m.Node(m.LaptopHome.Namespace, "other")
			n.RunNoWait("--token-file", m.WriteFile("bad-token", c.token+"\n"), "--proxy", "off", "--dns", "off")
			if code := n.Wait(10 * time.Second); code == 0 || !regexp.MustCompile("(?i)"+c.says).MatchString(n.Err()) {
				t.Errorf("weft run: exit %d: %s", code, n.Err())
			}
		})
	}
	if n := len(m.Server.Devices()); n != 1 {
		t.Errorf("%d devices, want 1", n)
	}
	if r := m.Laptop.WeftInput(good.Token, "up", "-"); r.Code != 0 {
		t.Fatalf("a good token after all the bad ones: %v", r)
	}
	id := m.Laptop.Status().Self.ID
	if r := m.Laptop.WeftInput(good.Token, "up", "-"); r.Code != 0 || m.Laptop.Status().Self.ID != id {
		t.Errorf("the same join repeated: %v", r)
	}

	// A one-time token used by many joins one device.
	one := m.WriteFile("one-time", m.Server.NewKey().Token)
	nodes := make([]*lab.Node, 6)
	for i := range nodes {
		nodes[i] = m.Node(m.LaptopHome.Namespace, fmt.Sprint("many-", i))
		nodes[i].RunNoWait("--token-file", one, "--proxy", "off", "--dns", "off")
	}
	joined := 0
	for _, n := range nodes {
		m.Until(20*time.Second, "each is in or out", func() bool {
			select {
			case <-n.Done():
				return true
			default:
			}
			r := n.Weft("wait", "--timeout", "100ms")
			if r.Code == 0 {
				joined++
			}
			return r.Code == 0
		})
	}
	if joined != 1 || len(m.Server.Devices()) != 3 {
		t.Errorf("%d of 6 joined with a one-time token, %d devices, want 1 and 3", joined, len(m.Server.Devices()))
	}

	// One reusable token for a fleet that starts at once.
	fleet := m.WriteFile("fleet", m.Server.NewKey("--reusable", "--tag", "sensor").Token)
	for range 8 {
		n := m.Node(m.LaptopHome.Namespace, "cam")
		n.RunNoWait("--token-file", fleet, "--proxy", "off", "--dns", "off")
	}
	m.Until(20*time.Second, "eight cams with names of their own", func() bool {
		names := map[string]bool{}
		for _, d := range m.Server.Devices() {
			if strings.HasPrefix(d.Name, "cam") && d.Online {
				names[d.Name] = true
			}
		}
		return len(names) == 8
	})
}

// swap exchanges two neighbouring, different letters.
func swap(s string) string {
	for i := len(s) / 2; i+1 < len(s); i++ {
		if s[i] != s[i+1] {
			return s[:i] + s[i+1:i+2] + s[i:i+1] + s[i+2:]
		}
	}
	return s
}

// Another server at the address of the token's server learns nothing, not even the
// secret.
func TestOtherServer(t *testing.T) {
	t.Parallel()
	m := lab.NewMeshNoNodes(t, bin)
	token := m.Server.Token
	m.Server.Stop()
	thief := m.Serve(m.Server.Host, ":8443", m.Server.URL, "--data", m.Mkdir("thief"))
	m.Laptop.Run()
	r := m.Laptop.WeftInput(token, "up", "-")
	if r.Code != 6 && r.Code != 1 {
		t.Errorf("want exit code 6: %v", r)
	}
	oneLine(t, r)
	if !strings.Contains(r.Err, "not the one") {
		t.Errorf("the message does not say that this is another server: %v", r)
	}
	if strings.Contains(thief.Err(), "/v1/join") || strings.Contains(thief.Err(), "token_unknown") {
		t.Errorf("the other server got the request:\n%s", thief.Err())
	}
	// A joined node does not talk to it either, and reconnects when the real one
	// returns.
	thief.Stop()
	m.Server.Start()
	m.Device.Join(token)
	m.Server.Stop()
	thief.Start()
	time.Sleep(2 * time.Second)
	if st := m.Device.Status(); st.State == "running" || st.Server.Online {
		t.Errorf("the device is content with the other server: %+v", st)
	}
	thief.Stop()
	m.Server.Start()
	m.Device.Must("wait", "--timeout", "30s")
}

// Whatever a device calls itself, its name is a DNS label and unique.
func TestHostnames(t *testing.T) {
	t.Parallel()
	m := lab.NewMeshNoNodes(t, bin)
	m.Device.Join(m.Server.Token)
	token := m.WriteFile("fleet", m.Server.NewKey("--reusable").Token)
	label := regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
	names := []string{"", "kitchen-pi", strings.Repeat("n", 300), "📷", "../x", "a\"\nProxyCommand x", "<script>", "-oProxyCommand=x", "localhost", "127.0.0.1", "weft.internal", "xn--80ak6aa92e", "a b", "ÜBER", "..", "%h"}
	var nodes []*lab.Node
	for _, name := range names {
		n := m.Node(m.LaptopHome.Namespace, "")
		n.Name = name
		flags := []string{"--token-file", token, "--proxy", "off", "--dns", "off"}
		if name == "" {
			flags = append(flags, "--hostname", "")
		}
		n.RunNoWait(flags...)
		nodes = append(nodes, n)
	}
	used := map[string]string{}
	for i, n := range nodes {
		var got string
		m.Until(30*time.Second, fmt.Sprintf("hostname %q is taken or refused", names[i]), func() bool {
			select {
			case <-n.Done():
				return true
			default:
			}
			if n.Weft("wait", "--timeout", "100ms").Code != 0 {
				return false
			}
			got = n.Status().Self.Name
			return true
		})
		if got == "" {
			if code := n.Wait(time.Second); code != 1 && code != 2 {
				t.Errorf("hostname %q: exit %d: %s", names[i], code, n.Err())
			}
			t.Logf("hostname %.40q: refused: %s", names[i], strings.TrimSpace(n.Err()))
			continue
		}
		t.Logf("hostname %.40q: %s", names[i], got)
		if !label.MatchString(got) || got == "localhost" {
			t.Errorf("hostname %q became %q", names[i], got)
		}
		if other, ok := used[got]; ok || got == "kitchen-pi" {
			t.Errorf("hostnames %q and %q both became %q", names[i], other, got)
		}
		used[got] = names[i]
	}
	if d, ok := m.Server.Device("kitchen-pi"); !ok || d.ID != m.Device.Status().Self.ID {
		t.Errorf("kitchen-pi is somebody else now: %+v", d)
	}
	if r := m.Server.Admin("devices", "list"); r.Code != 0 || strings.Contains(r.Out, "<script>") || strings.Contains(r.Out, "\nProxyCommand") {
		t.Errorf("devices list: %v", r)
	}
}
