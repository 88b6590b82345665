//go:build e2e

package e2e

import (
	"io"
	"net/http/cookiejar"
	"net/url"
	"strings"
	"testing"
	"time"

	"weft/scripts/e2e/lab"
)

// beforeOperations is the last commit whose server had neither an audit nor an API.
const beforeOperations = "edd3c3e"

// The server is upgraded in place while nodes of its version are online. They are the
// same devices after it, a connection between them goes on, whoever was signed in still
// is, and may do what the owner may. Then a backup that the old server made is restored.
func TestCompatUpgrade(t *testing.T) {
	then := oldPrograms(t, beforeOperations)
	if then == "" {
		return
	}
	l := lab.New(t, bin)
	host := l.Host("server")
	l.Bin = then
	s := l.Serve(host, ":8443", "https://"+host.Addr+":8443")
	m := lab.MeshOf(l, s)
	for _, n := range []*lab.Node{m.Device, m.Laptop} {
		n.Env = []string{"PATH=" + then + ":/usr/sbin:/usr/bin:/sbin:/bin"}
	}
	m.DeviceHome.EchoTCP("127.0.0.1:7")
	m.Device.Join(s.Token)
	m.Laptop.Up(s.NewKey().Token)
	fetch(t, m.Laptop, "http://kitchen-pi/", 10*time.Second)

	link, err := url.Parse(s.ConsoleURL)
	if err != nil {
		t.Fatal(err)
	}
	base := link.Scheme + "://" + link.Host
	jar, _ := cookiejar.New(nil)
	admin := host.HTTP("")
	admin.Jar = jar
	res, err := admin.PostForm(base+"/welcome", url.Values{"link": {link.Query().Get("link")}, "password": {"correct horse battery"}})
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	signedIn := func(when string) {
		t.Helper()
		// Names are for who runs the network: a member finds no such page.
		for _, path := range []string{"/devices", "/dns"} {
			res, err := admin.Get(base + path)
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(res.Body)
			res.Body.Close()
			if res.StatusCode != 200 || path == "/devices" && !strings.Contains(string(body), "kitchen-pi") {
				t.Errorf("%s: %s is %s", when, path, res.Status)
			}
		}
	}
	signedIn("before")
	key, backup, restored := l.Dir+"/backup.key", l.Mkdir("backup")+"/weft.backup", l.Mkdir("restored")+"/data"
	l.WriteFile("backup.key", "correct horse battery staple\n")
	if r := s.Admin("backup", "--key-file", key, "--output", backup); r.Code != 0 {
		t.Fatal(r)
	}
	before := map[string]lab.Device{}
	for _, d := range s.Devices() {
		before[d.Name] = d
	}
	same := func(s *lab.Server, when string) {
		t.Helper()
		m.Until(60*time.Second, when+": both are online", func() bool {
			a, _ := s.Device("kitchen-pi")
			b, _ := s.Device("laptop")
			return a.Online && b.Online
		})
		for _, d := range s.Devices() {
			if was := before[d.Name]; d.ID != was.ID || d.IPv4 != was.IPv4 {
				t.Errorf("%s: %+v was %+v", when, d, was)
			}
		}
		fetch(t, m.Laptop, "http://kitchen-pi/", 20*time.Second)
	}

	f := newFlow(t, m.Laptop, "kitchen-pi:7")
	f.echoes(10, 20*time.Second)
	s.Stop()
	l.Bin = bin
	s.Start()
	t.Logf("next echo %v after the server was ready", f.echoes(10, 30*time.Second).Round(time.Millisecond))
	if gap, err := f.end(); err != nil {
		t.Errorf("the connection died: %v", err)
	} else {
		t.Logf("longest gap: %v", gap.Round(time.Millisecond))
	}
	same(s, "after the upgrade")
	signedIn("after the upgrade")
	if r := s.Admin("audit", "verify"); r.Code != 0 {
		t.Error(r)
	}

	s.Stop()
	if r := host.Run(lab.Nobody, "weft-server", "restore", "--key-file", key, "--data", restored, backup); r.Code != 0 {
		t.Fatal(r)
	}
	again := &lab.Server{Host: host, Dir: restored, URL: s.URL, Console: s.Console}
	again.Args = []string{"weft-server", "serve", "--data", restored, "--listen", ":8443", "--console", again.Console, "--url", again.URL, "--stun", ":3478"}
	again.Start()
	same(again, "after the restore") // its sessions have ended: who restores signs in anew
}
