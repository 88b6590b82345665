//go:build e2e

package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"weft/scripts/e2e/lab"
)

var askedCode = regexp.MustCompile(`(?m)^  ([0-9A-Z]{5}-[0-9A-Z]{5})$`)

// A laptop joins without a token: by the fingerprint that the server printed, or where the
// certificate is trusted without one. The owner sees it and lets it in; who is killed while
// it waits is in at the next start; who gives up is gone from the list.
func TestAsk(t *testing.T) {
	t.Parallel()
	m := lab.NewMeshNoNodes(t, bin)
	m.Device.Join(m.Server.Token)
	url := m.Server.URL
	site, err := os.ReadFile(filepath.Join(m.Server.Dir, "site.pem"))
	if err != nil {
		t.Fatal(err)
	}
	cert, _, _ := strings.Cut(string(site), "-----END CERTIFICATE-----")
	trusted := m.WriteFile("site-cert.pem", cert+"-----END CERTIFICATE-----\n")
	up := func(n *lab.Node, flags ...string) (p *lab.Proc, code string) {
		t.Helper()
		p = n.Host.Start(n.As, append([]string{"weft", "up", "--socket", n.Sock, "--server", url}, flags...)...)
		m.Until(20*time.Second, "weft up shows a code", func() bool {
			found := askedCode.FindStringSubmatch(p.Err())
			if found != nil {
				code = found[1]
			}
			return found != nil
		})
		if !strings.Contains(p.Err(), url+"/approve?code="+code) {
			t.Errorf("%s", p.Err())
		}
		return p, code
	}
	waiting := func() (list struct {
		Requests []struct{ ID, Hostname, From, Name string }
	}) {
		t.Helper()
		r := m.Server.Admin("devices", "waiting", "--json")
		if err := json.Unmarshal([]byte(r.Out), &list); err != nil || r.Code != 0 {
			t.Fatalf("%v: %v", err, r)
		}
		return list
	}
	approve := func(code string) {
		t.Helper()
		if r := m.Server.Admin("devices", "approve", code, "--yes"); r.Code != 0 {
			t.Fatal(r)
		}
	}

	m.Laptop.Run()
	r := m.Laptop.Weft("up", "--server", url)
	found := regexp.MustCompile(`--fingerprint ([0-9A-F:]{95})`).FindStringSubmatch(r.Err)
	if r.Code != 6 || found == nil || !strings.Contains(r.Err, "not trusted here") || len(waiting().Requests) != 0 {
		t.Fatalf("a certificate that nobody knows: %v", r)
	}
	fingerprint := found[1]
	if printed := m.Server.Out() + m.Server.Err(); !strings.Contains(printed, fingerprint) {
		t.Errorf("the server does not print %s: %s", fingerprint, printed)
	}
	p, code := up(m.Laptop, "--fingerprint", fingerprint)
	list := waiting().Requests
	if len(list) != 1 || list[0].Hostname != "laptop" || list[0].Name != "laptop" || list[0].From == "" {
		t.Errorf("%+v", list)
	}
	if r := m.Server.Admin("devices", "approve", code); r.Code != 2 || !strings.Contains(r.Err, "laptop, linux/") || !strings.Contains(r.Err, "use --yes") {
		t.Errorf("without a terminal: %v", r)
	}
	approve(code)
	if c := p.Wait(20 * time.Second); c != 0 || !strings.Contains(p.Out(), "laptop.weft.internal is up") {
		t.Fatalf("exit %d: %s%s", c, p.Out(), p.Err())
	}
	m.Laptop.Must("wait", "kitchen-pi", "--timeout", "20s")

	// Behind a certificate that the system trusts, nobody is asked for a fingerprint.
	pkied := m.Node(m.LaptopHome.Namespace, "trusting")
	pkied.Env = []string{"SSL_CERT_FILE=" + trusted}
	pkied.Run("--proxy", "off", "--dns", "off")
	p, code = up(pkied)
	if r := m.Server.Admin("devices", "deny", code); r.Code != 0 {
		t.Fatal(r)
	}
	if c := p.Wait(30 * time.Second); c != 6 || !strings.Contains(p.Err(), "was denied") {
		t.Errorf("denied: exit %d: %s", c, p.Err())
	}
	p, _ = up(pkied)
	p.Signal(syscall.SIGINT)
	if c := p.Wait(10 * time.Second); c != 130 {
		t.Errorf("Ctrl-C: exit %d: %s", c, p.Err())
	}
	m.Until(10*time.Second, "the request is withdrawn", func() bool { return len(waiting().Requests) == 0 })

	// The server is killed and comes back: there is a new code.
	p, code = up(pkied)
	m.Server.Kill()
	m.Server.Start()
	m.Until(60*time.Second, "there is a new code", func() bool {
		all := askedCode.FindAllStringSubmatch(p.Err(), -1)
		if len(all) > 1 {
			code = all[len(all)-1][1]
		}
		return len(all) > 1
	})
	// The daemon is killed while it waits, and let in meanwhile.
	pkied.Kill()
	approve(code)
	pkied.Run("--proxy", "off", "--dns", "off")
	pkied.Must("up", "--server", url)
	pkied.Must("wait", "--timeout", "20s")
	if d, ok := m.Server.Device("trusting"); !ok || d.Name != "trusting" {
		t.Errorf("%+v", d)
	}
}
