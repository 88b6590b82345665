package ops

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"weft/coord/store"
	"weft/overlay/api"
	"weft/overlay/cert"
)

// keys list shows all keys, however many; the console's page those that can be
// used, however old.
func TestManyKeys(t *testing.T) {
	s := openSite(t)
	old, _, err := s.CreateKey(t.Context(), CreateKey{Note: "old", Reusable: true, Tags: []string{"device"}})
	if err != nil {
		t.Fatal(err)
	}
	const more = 10_500
	err = s.store.Write(t.Context(), func(tx *store.Tx) error {
		for i := range more {
			k := old
			k.ID, k.SecretHash = fmt.Sprintf("k%08d", i), sha256.Sum256([]byte{byte(i), byte(i >> 8)})
			k.Reusable, k.Created = false, old.Created.Add(time.Second)
			if err := tx.CreateKey(s.network, k); err != nil {
				return err
			}
			if err := tx.RevokeKey(s.network, k.ID, k.Created); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if keys, err := s.Keys(t.Context(), Root(), 0); err != nil || len(keys) != more+1 || keys[more].ID != old.ID {
		t.Errorf("%d keys, %v", len(keys), err)
	}
	if keys, err := s.Keys(t.Context(), s.owner(), 200); err != nil || len(keys) != 200 || keys[0].ID != old.ID {
		t.Errorf("the page has %d keys, %v", len(keys), err)
	}
}

// Two installs share nothing, and everything secret is for the owner's
// eyes only. A21: the database holds hashes.
func TestSecretsOnDisk(t *testing.T) {
	a, b := openSite(t), openSite(t)
	if a.network == b.network || cert.PinOf(a.auth.Server.Cert) == cert.PinOf(b.auth.Server.Cert) || a.ipv6 == b.ipv6 || a.Network().Epoch == b.Network().Epoch {
		t.Error("two installs share something")
	}
	tok := a.token(CreateKey{})
	link, err := a.LoginLink(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(link)
	if err != nil {
		t.Fatal(err)
	}
	p := a.withCodes(a.member("bob"), "session-of-bob-canary")
	secrets := append([]string{string(tok.Secret), tok.String(), b64(tok.Secret), u.Query().Get("link"), "session-of-bob-canary",
		string(p.secret), b64(p.secret), TOTPText(p.secret), "client-canary", "refresh-canary", "browser-canary"}, p.codes...)
	for _, code := range p.codes {
		secrets = append(secrets, strings.ReplaceAll(code, "-", ""))
	}
	if _, err := Do(t.Context(), a.Service, Root(), SetProvider{ID: "work", New: true, Issuer: pointer("https://accounts.example.org"), ClientID: pointer("weft"), Secret: pointer("client-canary")}); err != nil {
		t.Fatal(err)
	}
	who := foreigner("ben", true)
	who.Refresh = "refresh-canary"
	if _, err := Do(t.Context(), a.Service, ofNobody(nil), SignInWithProvider{Who: who, Session: NewSession{Hash: HashToken("ben"), Browser: HashToken("browser-canary")}}); err != nil {
		t.Fatal(err)
	}
	a.Close()
	filepath.Walk(a.data, func(path string, fi os.FileInfo, err error) error {
		if err != nil {
			t.Fatal(err)
		}
		if fi.Mode().Perm()&0o077 != 0 && path != a.data {
			t.Errorf("%s has mode %v", path, fi.Mode())
		}
		if fi.IsDir() {
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, secret := range secrets {
			if strings.Contains(string(text), secret) {
				t.Errorf("%s holds a secret: %.10q", path, secret)
			}
		}
		if strings.HasPrefix(filepath.Base(path), "weft.db") && strings.Contains(string(text), "PRIVATE KEY") {
			t.Errorf("%s holds a key", path)
		}
		return nil
	})
}

// A restart keeps everything; new addresses reach every node's config.
func TestRestart(t *testing.T) {
	s := openSite(t)
	laptop, cam := s.laptop("laptop"), s.camera("cam")
	gone := s.camera("gone")
	if _, err := s.DeleteDevice(t.Context(), gone.id); err != nil {
		t.Fatal(err)
	}
	before, network := s.Versions(laptop.id), s.Network()
	s.Close()
	reopen := func(o Options) *Service {
		t.Helper()
		o.Data, o.Now = s.data, s.clock.Now
		again, err := OpenService(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { again.Close() })
		return again
	}
	r := reopen(Options{})
	if v := r.Versions(laptop.id); v != before {
		t.Errorf("versions %+v, before %+v", v, before)
	}
	if got := r.Network(); string(got.CRL) != string(network.CRL) || got.Suffix != network.Suffix || len(got.URLs) != 1 {
		t.Errorf("%+v", got)
	}
	r.Close()
	r = reopen(Options{URLs: []string{"https://new:8443", "https://127.0.0.1:8443"}})
	if v := r.Versions(cam.id); v.Config == before.Config || v.Directory != (api.Version{}) {
		t.Errorf("versions %+v", v)
	}
	r.Close()
	if _, err := OpenService(t.Context(), Options{Data: s.data, IPv4: prefix("10.0.0.0/8")}); err == nil || !strings.Contains(err.Error(), "has devices") {
		t.Errorf("another range under devices: %v", err)
	}
	os.Rename(filepath.Join(s.data, "ca"), filepath.Join(s.data, "ca.away"))
	if _, err := OpenService(t.Context(), Options{Data: s.data}); err == nil {
		t.Error("opened without its CAs")
	}
	if _, err := os.Stat(filepath.Join(s.data, "ca", "network-ca.pem")); err == nil {
		t.Error("made new CAs over an existing network")
	}
}

// Writes that fail at the commit leave memory and database alike, and
// answer with an error; the next one works.
func TestFailedWrites(t *testing.T) {
	fail := 0
	boom := errors.New("disk full")
	on := false
	s := openSite(t, func(o *Options) {
		o.BeforeCommit = func() error {
			if fail++; on && fail%10 == 3 {
				return boom
			}
			return nil
		}
	})
	laptop := s.laptop("laptop")
	tok := s.token(CreateKey{Reusable: true, Tags: []string{"device"}})
	on = true
	var live []*device
	failed := 0
	for i := range 1000 {
		var err error
		switch {
		case i%3 != 2 || len(live) == 0:
			d := newDevice(t, s.Service)
			if err = d.join(t, tok, "d"); err == nil {
				live = append(live, d)
			}
		case i%2 == 0:
			if _, err = s.DeleteDevice(t.Context(), live[0].id); err == nil {
				live = live[1:]
			}
		default:
			_, err = s.RenameDevice(t.Context(), live[i%len(live)].id, "n"+strings.Repeat("x", i%40))
			if errors.Is(err, ErrTaken) {
				err = nil
			}
		}
		if err != nil {
			failed++
		}
	}
	on = false
	if failed < 50 {
		t.Errorf("only %d failures", failed)
	}
	x := newIndex(store.Network{}, s.index.policy)
	err := s.store.Read(t.Context(), func(r *store.Reader) (err error) {
		if x.network, err = r.Network(); err != nil {
			return err
		}
		return x.load(r)
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(x.nodes) != len(s.index.nodes) || len(x.nodes) != len(live)+1 {
		t.Errorf("%d nodes in the database, %d in memory, %d alive", len(x.nodes), len(s.index.nodes), len(live)+1)
	}
	for id := range x.nodes {
		a, _ := x.versions(id)
		b, _ := s.index.versions(id)
		if a != b {
			t.Errorf("node %s: database %+v, memory %+v", id, a, b)
		}
	}
	if string(x.network.CRL) != string(s.CRL()) {
		t.Error("the revocation lists differ")
	}
	var h held
	h.fetch(t, s, laptop)
	if len(h.names) != len(live) {
		t.Errorf("the directory has %d, alive are %d", len(h.names), len(live))
	}
}
