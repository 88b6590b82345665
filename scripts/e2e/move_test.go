//go:build e2e

package e2e

import (
	"strings"
	"testing"
	"time"

	"weft/scripts/e2e/lab"
)

// The steps of the README: a server moves to another machine with another address while
// one device is off, and every device finds it there.
func TestMoveServer(t *testing.T) {
	t.Parallel()
	l := lab.New(t, bin)
	from, to := l.Host("from"), l.Host("to")
	oldURL, newURL := "https://"+from.Addr+":8443", "https://"+to.Addr+":8443"
	s := l.Serve(from, ":8443", oldURL)
	m := lab.NewMeshOn(l, s)
	fetch(t, m.Laptop, "http://kitchen-pi/", 10*time.Second)
	m.Device.Stop()

	s.Stop()
	s.Args = append(s.Args, "--url", newURL)
	s.Start()
	said := func(what string) func() bool {
		return func() bool {
			r := s.Admin("devices", "list")
			return r.Code == 0 && (r.Err == "" && what == "" || what != "" && strings.Contains(r.Err, what))
		}
	}
	m.Until(30*time.Second, "only the device that is off does not know", said("1 of 2 devices do not know"))
	if r := s.Admin("devices", "list"); strings.Count(r.Out, "not told") != 1 {
		t.Error(r)
	}
	m.Device.Run()
	m.Until(30*time.Second, "everybody knows the new address", said(""))
	s.Kill() // the addresses are saved
	s.Start()
	m.Until(10*time.Second, "everybody still does", said(""))

	key, file, dir := l.Dir+"/backup.key", l.Mkdir("backup")+"/weft.backup", l.Dir+"/moved/data"
	l.Mkdir("moved")
	l.WriteFile("backup.key", "correct horse battery staple\n")
	if r := s.Admin("backup", "--key-file", key, "--output", file); r.Code != 0 {
		t.Fatal(r)
	}
	s.Stop()
	if r := to.Run(lab.Nobody, "weft-server", "restore", "--key-file", key, "--data", dir, file); r.Code != 0 {
		t.Fatal(r)
	}
	there := &lab.Server{Host: to, Dir: dir, URL: newURL, Console: "127.0.0.1:8080"}
	there.Args = []string{"weft-server", "serve", "--data", dir, "--listen", ":8443", "--console", there.Console, "--url", newURL, "--stun", ":3478"}
	there.Start()
	took := m.Until(60*time.Second, "both are at the new address", func() bool {
		a, _ := there.Device("kitchen-pi")
		b, _ := there.Device("laptop")
		return a.Online && b.Online
	})
	t.Logf("everybody was there after %v, the page came after %v more", took.Round(time.Millisecond), fetch(t, m.Laptop, "http://kitchen-pi/", 20*time.Second).Round(time.Millisecond))
	m.Until(10*time.Second, "they know no other address", func() bool { return m.Laptop.Status().Server.URL == newURL })
	// A device that comes back later learns the new address, too.
	den := l.Node(l.Home("den").Namespace, "den-pi")
	den.Join(there.NewKey("--tag", "device").Token)
}
