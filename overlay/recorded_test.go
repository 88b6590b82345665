package overlay

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"weft/overlay/api"
	"weft/overlay/api/wiretest"
	"weft/overlay/cert"
	"weft/overlay/internal/directory"
	"weft/overlay/internal/network"
	"weft/overlay/internal/state"
)

// testdata/state-N are state directories of laptops of earlier versions (made by
// scripts/record). Today's node can use them, and what it writes contains everything that
// was written then, also with fields that a later version has added.
func TestRecordedState(t *testing.T) {
	dirs, err := filepath.Glob("testdata/state-*")
	if err != nil || len(dirs) < 4 {
		t.Fatalf("%v, %v", dirs, err)
	}
	for _, from := range dirs {
		for _, later := range []bool{false, true} {
			dir := filepath.Join(t.TempDir(), "state")
			if err := os.CopyFS(dir, os.DirFS(from)); err != nil {
				t.Fatal(err)
			}
			recorded := map[string][]byte{}
			for _, name := range []string{state.IdentityFile, state.ConfigFile, state.DirectoryFile} {
				b, err := os.ReadFile(filepath.Join(dir, name))
				if err != nil {
					t.Fatal(err)
				}
				recorded[name] = b
				if later {
					os.WriteFile(filepath.Join(dir, name), wiretest.Later(t, b), 0o600)
				}
			}
			opened, err := state.Open(dir)
			if err != nil {
				t.Fatal(err)
			}
			id, err := opened.LoadIdentity()
			if err != nil || !id.Joined() {
				t.Fatalf("%s: %v", from, err)
			}
			var config api.Config
			var saved directory.Saved
			names := map[string]cert.NodeID{}
			if !opened.LoadCache(state.ConfigFile, &config) || !opened.LoadCache(state.DirectoryFile, &saved) || !opened.LoadCache(state.NamesFile, &names) || opened.LoadHome() == "" {
				t.Errorf("%s: a cache is not read", from)
			}
			crl, err := os.ReadFile(filepath.Join(dir, state.CRLFile))
			if err != nil {
				t.Fatal(err)
			}
			s, err := network.New(id, &config, crl)
			if err != nil {
				t.Fatalf("%s: %v", from, err)
			}
			if s.Self.Name != "laptop" || s.CRL.Len() != 1 || len(s.Config.Relays) == 0 || len(names) < 3 {
				t.Errorf("%s: %s, %d revoked, %d relays, %d names", from, s.Self.Name, s.CRL.Len(), len(s.Config.Relays), len(names))
			}
			known := map[string]bool{}
			for _, p := range saved.Peers {
				n, err := s.Roots.VerifyNodeAnyTime(p.Certificate)
				if err != nil || s.CRL.Revoked(n.Serial) {
					t.Errorf("%s: a peer: %v", from, err)
					continue
				}
				known[n.Name] = true
			}
			if !known["cam"] || !known["pantry-pi"] || known["stolen"] {
				t.Errorf("%s: knows %v", from, known)
			}
			for name, v := range map[string]any{state.IdentityFile: id, state.ConfigFile: config, state.DirectoryFile: saved} {
				b, err := json.Marshal(v)
				if err != nil {
					t.Fatal(err)
				}
				for _, lost := range wiretest.Lost(t, recorded[name], b, true) {
					t.Errorf("%s/%s: %s", from, name, lost)
				}
			}
			opened.Close()
		}
	}
}

// A state directory of a version that changed more than fields is refused, and
// stays as it is.
func TestLaterState(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	if err := os.CopyFS(dir, os.DirFS("testdata/state-1")); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, state.IdentityFile)
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	b = []byte(strings.Replace(string(b), `"node/1"`, `"node/2"`, 1))
	os.WriteFile(file, b, 0o600)
	opened, err := state.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer opened.Close()
	if _, err := opened.LoadIdentity(); err == nil || !strings.Contains(err.Error(), "or a newer one") {
		t.Errorf("got %v", err)
	}
	if after, _ := os.ReadFile(file); string(after) != string(b) {
		t.Error("it was written to")
	}
}
