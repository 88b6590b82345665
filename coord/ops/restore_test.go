package ops

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"weft/coord/datadir"
	"weft/coord/seal"
	"weft/overlay/api"
	"weft/overlay/cert"
)

// backedUp returns a backup of the site.
func (s *site) backedUp(key string) []byte {
	s.t.Helper()
	var b bytes.Buffer
	if _, err := Backup(context.Background(), snapshotOf(s.Service), s.data, []byte(key), &b); err != nil {
		s.t.Fatal(err)
	}
	return b.Bytes()
}

// A restored server is the same server: devices are known, their certificates
// hold, and every version they hold is an old one.
func TestRestore(t *testing.T) {
	s := openSite(t)
	pi := s.camera("kitchen-pi")
	backup := s.backedUp("correct horse battery staple")
	if bytes.Contains(backup, []byte("kitchen-pi")) || bytes.Contains(backup, []byte("PRIVATE KEY")) {
		t.Error("the backup can be read")
	}
	if left, _ := filepath.Glob(filepath.Join(s.data, snapshots, "*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	before, err := pi.Config(t.Context(), api.Version{})
	if err != nil {
		t.Fatal(err)
	}
	s.Close()

	dir := filepath.Join(t.TempDir(), "a", "data")
	if err := Restore(t.Context(), bytes.NewReader(backup), []byte("correct horse battery staple"), dir, s.clock.Now()); err != nil {
		t.Fatal(err)
	}
	again := openSite(t, func(o *Options) { o.Data, o.Create = dir, false })
	if again.network != s.network || again.auth.RelayID() != s.auth.RelayID() {
		t.Error("it is another server")
	}
	pi = pi.at(again)
	after, err := pi.Config(t.Context(), before.Version)
	if err != nil || after == nil || after.Version == before.Version || after.Self.Name != "kitchen-pi" || after.Self.IPv4 != before.Self.IPv4 {
		t.Errorf("config after the restore: %+v, %v", after, err)
	}
	for _, c := range []struct {
		name, key string
		b         []byte
		dir       string
		want      error
	}{
		{"over something", "correct horse battery staple", backup, dir, ErrNotEmpty},
		{"another key", "incorrect horse battery", backup, filepath.Join(t.TempDir(), "x"), seal.ErrPassphrase},
		{"cut", "correct horse battery staple", backup[:len(backup)-100], filepath.Join(t.TempDir(), "x"), seal.ErrPassphrase},
		{"no backup", "correct horse battery staple", []byte("hello"), filepath.Join(t.TempDir(), "x"), seal.ErrNotBackup},
	} {
		err := Restore(t.Context(), bytes.NewReader(c.b), []byte(c.key), c.dir, s.clock.Now())
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
		if list, _ := os.ReadDir(filepath.Dir(c.dir)); c.want != ErrNotEmpty && len(list) > 0 {
			t.Errorf("%s: left %v", c.name, list)
		}
	}
}

// at is the same device at another server.
func (d *device) at(s *site) *device {
	n := newDevice(s.t, s.Service)
	n.key, n.id, n.shown, n.res = d.key, d.id, d.shown, d.res
	return n
}

// Whoever was deleted after the backup was made stays deleted: the first
// node that holds the newer list brings it.
func TestOldBackupResurrectsNobody(t *testing.T) {
	s := openSite(t)
	laptop, pi, stolen := s.laptop("laptop"), s.camera("pi"), s.camera("stolen")
	backup := s.backedUp("correct horse battery staple")
	late := s.camera("late") // joined and deleted after the backup: not known to it
	for _, d := range []*device{stolen, late} {
		if _, err := s.DeleteDevice(t.Context(), d.id); err != nil {
			t.Fatal(err)
		}
	}
	list := s.CRL()
	s.Close()
	dir := filepath.Join(t.TempDir(), "data")
	if err := Restore(t.Context(), bytes.NewReader(backup), []byte("correct horse battery staple"), dir, s.clock.Now()); err != nil {
		t.Fatal(err)
	}
	again := openSite(t, func(o *Options) { o.Data, o.Create = dir, false })
	again.clock.Add(time.Hour)
	laptop, pi, stolen = laptop.at(again), pi.at(again), stolen.at(again)
	// In the meantime it may even renew.
	csr, _ := cert.NewCSR(stolen.key)
	renewed, err := stolen.Renew(t.Context(), api.RenewRequest{Protocol: api.Protocol, CSR: csr})
	if err != nil {
		t.Fatal(err)
	}
	if err := laptop.SendCRL(t.Context(), []byte("junk")); err == nil || !strings.Contains(err.Error(), "not one of this network") {
		t.Errorf("junk: %v", err)
	}
	// Who brings it does not matter, as long as a CA of this network vouched for
	// them at some time. A stranger is heard once at a time.
	late = late.at(again)
	if !again.strangers.enter(late.id) {
		t.Fatal("no room for the first")
	}
	wantCode(t, late.SendCRL(t.Context(), list), 503, api.CodeUnavailable)
	again.strangers.leave(late.id)
	wantCode(t, newDevice(t, again.Service).SendCRL(t.Context(), list), 401, api.CodeUnauthorized)
	for _, d := range []*device{late, laptop, laptop} { // sending it again is harmless
		if err := d.SendCRL(t.Context(), list); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := stolen.Config(t.Context(), api.Version{}); err == nil {
		t.Error("the stolen device is back")
	}
	if _, err := pi.Config(t.Context(), api.Version{}); err != nil {
		t.Errorf("an innocent device: %v", err)
	}
	old, err := again.auth.Roots.VerifyCRL(list)
	if err != nil {
		t.Fatal(err)
	}
	crl, err := again.auth.Roots.VerifyCRL(again.CRL())
	if err != nil || crl.Number <= old.Number {
		t.Fatalf("number %d after %d, %v", crl.Number, old.Number, err)
	}
	node, err := again.auth.Roots.VerifyNodeAnyTime(renewed.Certificate)
	if err != nil || !crl.Revoked(node.Serial) {
		t.Errorf("the certificate it got in between is good: %v", err)
	}
	for _, serial := range old.Serials() {
		if !crl.Revoked(serial) {
			t.Errorf("serial %x is good again", serial)
		}
	}
}

// A restore that was killed leaves the CAs' keys beside its target. The next one
// removes them, and so does the server when it starts; one that runs is left
// alone, and so is what only looks like it.
func TestKilledRestore(t *testing.T) {
	s := openSite(t)
	backup := s.backedUp("correct horse battery staple")
	s.Close()
	dir := filepath.Join(t.TempDir(), "data")
	parent := filepath.Dir(dir)
	leave := func(name string) string {
		path := filepath.Join(parent, name)
		if err := os.MkdirAll(filepath.Join(path, "ca"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(path, "ca", "network-key.pem"), []byte("secret"), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	held, other := leave(".data.restore-2"), leave(".data2.restore-3")
	lock, err := datadir.Lock(t.Context(), held, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	elsewhere := leave("elsewhere")
	link := filepath.Join(parent, ".data.restore-4")
	if err := os.Symlink(elsewhere, link); err != nil {
		t.Fatal(err)
	}
	check := func(who string, do func() error) {
		t.Helper()
		left := leave(".data.restore-1")
		if err := do(); err != nil {
			t.Fatalf("%s: %v", who, err)
		}
		if _, err := os.Stat(left); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s left the keys there: %v", who, err)
		}
		for _, path := range []string{held, other, elsewhere, link} {
			if _, err := os.Stat(filepath.Join(path, "ca", "network-key.pem")); err != nil {
				t.Errorf("%s: %v", who, err)
			}
		}
	}
	check("restore", func() error {
		return Restore(t.Context(), bytes.NewReader(backup), []byte("correct horse battery staple"), dir, s.clock.Now())
	})
	check("start", func() error {
		return openSite(t, func(o *Options) { o.Data, o.Create = dir, true }).Close()
	})
}

// Who is not known brings one list at a time, and not all at once.
func TestStrangers(t *testing.T) {
	var s strangers
	id := func(i int) cert.NodeID { return cert.NodeID{byte(i)} }
	for i := range maxStrangers {
		if !s.enter(id(i)) || s.enter(id(i)) {
			t.Fatalf("stranger %d", i)
		}
	}
	if s.enter(id(maxStrangers)) {
		t.Error("one too many")
	}
	s.leave(id(3))
	if !s.enter(id(maxStrangers)) {
		t.Error("the place of who left is not free")
	}
}
