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
)

// testdata/state-N are state directories of laptops of their time (scripts/record
// made them). Today's node is that laptop, and what it writes holds all that was
// written then; it is so, too, where a later version has added fields.
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
			for _, name := range []string{identityFile, configFile, directoryFile} {
				b, err := os.ReadFile(filepath.Join(dir, name))
				if err != nil {
					t.Fatal(err)
				}
				recorded[name] = b
				if later {
					os.WriteFile(filepath.Join(dir, name), wiretest.Later(t, b), 0o600)
				}
			}
			state, err := openState(dir)
			if err != nil {
				t.Fatal(err)
			}
			id, err := state.loadIdentity()
			if err != nil || !id.joined() {
				t.Fatalf("%s: %v", from, err)
			}
			var config api.Config
			var saved directory.Saved
			names := map[string]cert.NodeID{}
			if !state.loadCache(configFile, &config) || !state.loadCache(directoryFile, &saved) || !state.loadCache(namesFile, &names) || state.loadHome() == "" {
				t.Errorf("%s: a cache is not read", from)
			}
			crl, err := os.ReadFile(filepath.Join(dir, crlFile))
			if err != nil {
				t.Fatal(err)
			}
			s, err := makeSnapshot(id, &config, crl)
			if err != nil {
				t.Fatalf("%s: %v", from, err)
			}
			if s.self.Name != "laptop" || s.crl.Len() != 1 || len(s.config.Relays) == 0 || len(names) < 3 {
				t.Errorf("%s: %s, %d revoked, %d relays, %d names", from, s.self.Name, s.crl.Len(), len(s.config.Relays), len(names))
			}
			known := map[string]bool{}
			for _, p := range saved.Peers {
				n, err := s.roots.VerifyNodeAnyTime(p.Certificate)
				if err != nil || s.crl.Revoked(n.Serial) {
					t.Errorf("%s: a peer: %v", from, err)
					continue
				}
				known[n.Name] = true
			}
			if !known["cam"] || !known["pantry-pi"] || known["stolen"] {
				t.Errorf("%s: knows %v", from, known)
			}
			for name, v := range map[string]any{identityFile: id, configFile: config, directoryFile: saved} {
				b, err := json.Marshal(v)
				if err != nil {
					t.Fatal(err)
				}
				for _, lost := range wiretest.Lost(t, recorded[name], b, true) {
					t.Errorf("%s/%s: %s", from, name, lost)
				}
			}
			state.close()
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
	file := filepath.Join(dir, identityFile)
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	b = []byte(strings.Replace(string(b), `"node/1"`, `"node/2"`, 1))
	os.WriteFile(file, b, 0o600)
	state, err := openState(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer state.close()
	if _, err := state.loadIdentity(); err == nil || !strings.Contains(err.Error(), "or a newer one") {
		t.Errorf("got %v", err)
	}
	if after, _ := os.ReadFile(file); string(after) != string(b) {
		t.Error("it was written to")
	}
}
