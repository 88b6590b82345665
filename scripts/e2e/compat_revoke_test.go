//go:build e2e

package e2e

import (
	"bytes"
	"database/sql"
	"os"
	"path/filepath"
	"testing"
	"time"

	_ "modernc.org/sqlite"

	"weft/overlay/cert"
	"weft/scripts/e2e/lab"
)

// beforeSince is the last commit whose revocation list does not say which entries it
// omits, and whose nodes accept any relay of the network in place of any other.
const beforeSince = "edd3c3e"

// Old nodes use the list of a new server, and new nodes that of an old server, with a
// separate relay. The deleted device stays out. When the server is away, the others
// connect through the relay, even after their daemons and the relay restarted.
func TestCompatRevoke(t *testing.T) {
	then := oldPrograms(t, beforeSince)
	if then == "" {
		return
	}
	for _, c := range []struct {
		name           string
		server, relay  string
		device, laptop bool // of the old version
	}{
		{"old nodes, new server, new relay", bin, bin, true, true},
		{"old device, new laptop, new server, old relay", bin, then, true, false},
		{"new nodes, old server, old relay", then, then, false, false},
		{"new device, old laptop, old server, new relay", then, bin, false, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := lab.New(t, bin)
			host, at := l.Host("server"), l.Host("relay")
			l.Bin = c.server
			s := l.Serve(host, ":8443", "https://"+host.Addr+":8443")
			l.Bin = c.relay
			rl, again := startRelay(l, s, at)
			l.Bin = bin
			m := lab.MeshOf(l, s)
			for n, old := range map[*lab.Node]bool{m.Device: c.device, m.Laptop: c.laptop} {
				if old {
					n.Env = []string{"PATH=" + then + ":/usr/sbin:/usr/bin:/sbin:/bin"}
				}
			}
			m.Device.Join(s.Token)
			m.Laptop.Up(s.NewKey().Token)
			lost := l.Node(l.Home("lost").Namespace, "lost")
			lost.Join(s.NewKey("--tag", "device").Token)
			fetch(t, m.Laptop, "http://kitchen-pi/", 10*time.Second)

			// An entry has left the list of the new server.
			dropped := time.Now().Add(-24 * time.Hour).Truncate(time.Second)
			if c.server == bin {
				s.Stop()
				db, err := sql.Open("sqlite", filepath.Join(s.Dir, "weft.db")+"?_pragma=busy_timeout(10000)")
				if err == nil {
					_, err = db.Exec("UPDATE networks SET dropped_until = $1", dropped.Unix())
					db.Close()
				}
				if err != nil {
					t.Fatal(err)
				}
				l.Bin = c.server
				s.Start()
				l.Bin = bin
			}
			if r := s.Admin("devices", "delete", "lost"); r.Code != 0 {
				t.Fatal(r)
			}
			var list []byte
			for _, n := range []*lab.Node{m.Device, m.Laptop} {
				l.Until(60*time.Second, n.Name+" has the list with the device", func() bool {
					der, err := os.ReadFile(filepath.Join(n.State, "crl.der"))
					if err != nil || bytes.Equal(der, list) {
						return err == nil
					}
					crl := revocations(t, s, der)
					if crl.Len() == 0 {
						return false
					}
					want := time.Time{}
					if c.server == bin {
						want = dropped.Add(time.Second)
					}
					if !crl.Since.Equal(want) {
						t.Fatalf("the list is complete since %v, want %v", crl.Since, want)
					}
					list = der
					return true
				})
			}
			l.Until(20*time.Second, "the deleted device is dropped", func() bool { return !lost.Status().Self.Online })
			fetch(t, m.Laptop, "http://kitchen-pi/", 20*time.Second)

			s.Kill()
			rl.Kill()
			l.Bin = c.relay
			again()
			l.Bin = bin
			for _, n := range []*lab.Node{m.Device, m.Laptop} {
				n.Kill()
				n.Run()
				n.Must("wait", "--timeout", "40s")
			}
			l.Until(60*time.Second, "a page over the relay that runs alone", func() bool {
				_, err := m.Laptop.Get("http://kitchen-pi/", 5*time.Second)
				return err == nil
			})
			if st := lost.Status(); st.Self.Online {
				t.Errorf("the deleted device is back at %q", st.Self.Relay)
			}
		})
	}
}

// revocations reads a server's revocation list.
func revocations(t *testing.T, s *lab.Server, der []byte) *cert.CRL {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(s.Dir, "ca", "network-ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	ca, err := cert.ParseCA(b)
	if err != nil {
		t.Fatal(err)
	}
	roots, err := cert.NewNetworkRoots(cert.PinOf(ca.Cert).NetworkID(), [][]byte{ca.Cert.Raw})
	if err != nil {
		t.Fatal(err)
	}
	crl, err := roots.VerifyCRL(der)
	if err != nil {
		t.Fatal(err)
	}
	return crl
}
