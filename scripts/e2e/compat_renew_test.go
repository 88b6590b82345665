//go:build e2e

package e2e

import (
	"crypto/ecdsa"
	"database/sql"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	_ "modernc.org/sqlite"

	"weft/overlay/cert"
	"weft/scripts/e2e/lab"
)

// beforeRenewal is the last commit whose server signs a new certificate for every
// renewal.
const beforeRenewal = "edd3c3e"

// Old nodes renew at a new server, and new nodes at an old server: a certificate that
// is due, once and not repeatedly, and after a rename. Then the device is deleted, and
// the other node refuses it.
func TestCompatRenew(t *testing.T) {
	then := oldPrograms(t, beforeRenewal)
	if then == "" {
		return
	}
	for _, c := range []struct {
		name           string
		server         string
		device, laptop bool // of the old version
		certificates   int  // that the device has received in the end
	}{
		{"old device, new laptop, new server", bin, true, false, 4},
		{"new device, old laptop, new server", bin, false, true, 4},
		{"both new, old server", then, false, false, 5},
		{"both old, upgraded server", "", true, true, 4},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := lab.New(t, bin)
			host := l.Host("server")
			if l.Bin = c.server; c.server == "" {
				l.Bin = then
			}
			s := l.Serve(host, ":8443", "https://"+host.Addr+":8443", "--metrics", "127.0.0.1:9273")
			m := lab.MeshOf(l, s)
			for n, old := range map[*lab.Node]bool{m.Device: c.device, m.Laptop: c.laptop} {
				if old {
					n.Env = []string{"PATH=" + then + ":/usr/sbin:/usr/bin:/sbin:/bin"}
				}
			}
			m.Device.Join(s.Token)
			m.Laptop.Up(s.NewKey().Token)
			fetch(t, m.Laptop, "http://kitchen-pi/", 10*time.Second)

			m.Device.Stop()
			s.Stop()
			w := certs{t: t, server: s, device: m.Device}
			w.age()
			if c.server == "" {
				l.Bin = bin
			}
			s.Start()
			m.Device.Run()
			m.Device.Must("wait", "--timeout", "20s")
			m.Until(20*time.Second, "the device has renewed its certificate", func() bool {
				return time.Until(w.held().NotAfter) > 80*24*time.Hour
			})
			fetch(t, m.Laptop, "http://kitchen-pi/", 20*time.Second)
			w.renewals(1)

			if r := s.Admin("devices", "rename", "kitchen-pi", "pantry-pi"); r.Code != 0 {
				t.Fatal(r)
			}
			m.Until(20*time.Second, "the device has the new name in its certificate", func() bool { return w.held().Name == "pantry-pi" })
			fetch(t, m.Laptop, "http://pantry-pi/", 20*time.Second)
			w.renewals(2)
			m.Device.Stop()
			m.Device.Run()
			m.Device.Must("wait", "--timeout", "20s")
			fetch(t, m.Laptop, "http://pantry-pi/", 20*time.Second)
			w.renewals(2)
			if n := w.given(); n != c.certificates {
				t.Errorf("the device was given %d certificates, want %d", n, c.certificates)
			}

			if r := s.Admin("devices", "delete", "pantry-pi"); r.Code != 0 {
				t.Fatal(r)
			}
			serial := w.held().Serial
			m.Until(20*time.Second, "the laptop has the list with the device", func() bool {
				der, err := os.ReadFile(filepath.Join(m.Laptop.State, "crl.der"))
				if err != nil {
					return false
				}
				crl, err := w.roots().VerifyCRL(der)
				return err == nil && crl.Revoked(serial) && crl.Len() == c.certificates
			})
			m.Until(20*time.Second, "the relay has dropped the device", func() bool { return !m.Device.Status().Self.Online })
			if r := m.Laptop.Weft("ping", "-c", "1", "pantry-pi"); r.Code == 0 {
				t.Errorf("the laptop reaches the deleted device: %v", r)
			}
		})
	}
}

// certs reads the files of a server and a device.
type certs struct {
	t      *testing.T
	server *lab.Server
	device *lab.Node
}

func (w certs) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w certs) ca() *cert.CA {
	w.t.Helper()
	b, err := os.ReadFile(filepath.Join(w.server.Dir, "ca", "network-ca.pem"))
	w.must(err)
	ca, err := cert.ParseCA(b)
	w.must(err)
	return ca
}

func (w certs) roots() *cert.NetworkRoots {
	w.t.Helper()
	ca := w.ca()
	roots, err := cert.NewNetworkRoots(cert.PinOf(ca.Cert).NetworkID(), [][]byte{ca.Cert.Raw})
	w.must(err)
	return roots
}

// identity returns the device's state and its path.
func (w certs) identity() (path string, id map[string]json.RawMessage) {
	w.t.Helper()
	path = filepath.Join(w.device.State, "node.json")
	b, err := os.ReadFile(path)
	w.must(err)
	w.must(json.Unmarshal(b, &id))
	return path, id
}

// held returns the device's certificate.
func (w certs) held() *cert.Node {
	w.t.Helper()
	_, id := w.identity()
	var der []byte
	w.must(json.Unmarshal(id["certificate"], &der))
	node, err := w.roots().VerifyNodeAnyTime(der)
	w.must(err)
	return node
}

// age replaces the device's certificate, on the device and on the server, by one that
// is due for renewal, while neither runs.
func (w certs) age() {
	w.t.Helper()
	old, now := w.held(), time.Now()
	pub, ok := old.Leaf.PublicKey.(*ecdsa.PublicKey)
	if !ok {
		w.t.Fatalf("its key is a %T", old.Leaf.PublicKey)
	}
	serial, ends := cert.NewSerial(), now.Add(20*24*time.Hour)
	der, err := w.ca().SignNode(pub, old.Attributes, serial, ends.Add(-90*24*time.Hour), ends)
	w.must(err)
	path, id := w.identity()
	id["certificate"], err = json.Marshal(der)
	w.must(err)
	b, err := json.Marshal(id)
	w.must(err)
	w.must(os.WriteFile(path, b, 0o600))
	w.sql(func(db *sql.DB) error {
		if _, err := db.Exec(`UPDATE nodes SET certificate=$1, expires_at=$2 WHERE node_id=$3`, der, ends.Unix(), old.ID[:]); err != nil {
			return err
		}
		_, err := db.Exec(`INSERT INTO issued (network_id, node_id, serial, expires_at) VALUES ($1,$2,$3,$4)`, old.Network[:], old.ID[:], serial.Bytes(), ends.Unix())
		return err
	})
}

func (w certs) sql(f func(*sql.DB) error) {
	w.t.Helper()
	db, err := sql.Open("sqlite", filepath.Join(w.server.Dir, "weft.db")+"?_pragma=busy_timeout(10000)")
	w.must(err)
	err = f(db)
	db.Close()
	w.must(err)
}

// given counts the certificates issued to the device.
func (w certs) given() (n int) {
	w.t.Helper()
	id := w.held().ID
	w.sql(func(db *sql.DB) error {
		return db.QueryRow(`SELECT COUNT(*) FROM issued WHERE node_id=$1`, id[:]).Scan(&n)
	})
	return n
}

// renewals waits for this number of renewals since the start of the server.
func (w certs) renewals(want int) {
	w.t.Helper()
	res, err := w.server.Host.HTTP("").Get("http://127.0.0.1:9273/metrics")
	w.must(err)
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	w.must(err)
	if line := fmt.Sprintf(`weft_server_requests_total{code="200",route="POST /v1/renew"} %d`, want); !strings.Contains(string(b), line+"\n") {
		w.t.Errorf("not in the server's metrics: %s", line)
	}
}
