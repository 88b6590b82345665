//go:build e2e

package e2e

import (
	"database/sql"
	"path/filepath"
	"strings"
	"testing"
	"time"

	_ "modernc.org/sqlite"

	"weft/scripts/e2e/lab"
)

// beforeOverdue is a commit whose nodes know nothing of people who sign their devices in
// again.
const beforeOverdue = "edd3c3e"

// A laptop that its person has not signed in again is cut off whether it or the device that
// it reaches is of an earlier version, and reaches it again once that is no longer demanded.
// An earlier device lets in nobody of that person meanwhile, a present one lets in the others.
func TestCompatOverdue(t *testing.T) {
	then := oldPrograms(t, beforeOverdue)
	if then == "" {
		return
	}
	for _, c := range []struct {
		name           string
		device, laptop bool // of the old version
	}{
		{"old device", true, false},
		{"old laptop", false, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := lab.New(t, bin)
			host := l.Host("server")
			s := l.Serve(host, ":8443", "https://"+host.Addr+":8443")
			m := lab.MeshOf(l, s)
			other := m.Node(m.LaptopHome.Namespace, "other")
			for n, old := range map[*lab.Node]bool{m.Device: c.device, m.Laptop: c.laptop} {
				if old {
					n.Env = []string{"PATH=" + then + ":/usr/sbin:/usr/bin:/sbin:/bin"}
				}
			}
			m.Device.Join(s.Token)
			m.Laptop.Up(s.NewKey().Token)
			other.Up(s.NewKey().Token, "--proxy", "off", "--dns", "off")
			reaches := func(n *lab.Node, to string) bool { return n.Weft("ping", "-c", "1", to).Code == 0 }
			admin := func(args ...string) {
				t.Helper()
				if r := s.Admin(args...); r.Code != 0 {
					t.Fatal(r)
				}
			}
			m.Until(20*time.Second, "both reach the device", func() bool { return reaches(m.Laptop, "kitchen-pi") && reaches(other, "kitchen-pi") })
			admin("sign-in", "set", "--device-days", "1")
			if !reaches(m.Laptop, "kitchen-pi") {
				t.Error("it is cut off at once")
			}
			// Two days pass, in which somebody has signed in the others.
			s.Kill()
			db, err := sql.Open("sqlite", filepath.Join(s.Dir, "weft.db")+"?_pragma=busy_timeout(10000)")
			if err != nil {
				t.Fatal(err)
			}
			for _, q := range []string{`UPDATE sign_in SET device_from = device_from - 172800`, `UPDATE nodes SET signed_in_at = signed_in_at - 172800 WHERE name = 'laptop'`} {
				if _, err := db.Exec(q); err != nil {
					t.Fatal(err)
				}
			}
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
			s.Start()
			m.Until(60*time.Second, "the laptop is cut off", func() bool { return !reaches(m.Laptop, "kitchen-pi") })
			if !c.laptop {
				m.Until(20*time.Second, "the laptop knows why", func() bool {
					r := m.Laptop.Weft("ping", "-c", "1", "kitchen-pi")
					return r.Code == 6 && strings.Contains(r.Err, "weft up")
				})
				m.Until(20*time.Second, "the laptop is reached", func() bool { return reaches(other, "laptop") })
			}
			m.Until(20*time.Second, "the device lets in the other one, or not", func() bool { return reaches(other, "kitchen-pi") != c.device })
			admin("sign-in", "set", "--device-days", "0")
			m.Until(30*time.Second, "both reach the device again", func() bool { return reaches(m.Laptop, "kitchen-pi") && reaches(other, "kitchen-pi") })
		})
	}
}
