package overlay

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"weft/overlay/cert"
)

func testIdentity(t *testing.T) *identity {
	t.Helper()
	key, err := cert.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	pem, err := cert.MarshalKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return &identity{Schema: identitySchema, Key: string(pem), Network: cert.NetworkID{1}, ServerPins: []cert.Pin{{2}}, URLs: []string{"https://203.0.113.1"}, key: key}
}

func TestStateDirectoryIsLocked(t *testing.T) {
	dir := t.TempDir()
	s, err := openState(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := openState(dir); !errors.Is(err, errLocked) {
		t.Errorf("second daemon: %v, want %v", err, errLocked)
	}
	s.close()
	again, err := openState(dir)
	if err != nil {
		t.Fatalf("after the first has gone: %v", err)
	}
	again.close()
}

func TestIdentityIsPrivateAndWhole(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	s, err := openState(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	if id, err := s.loadIdentity(); id != nil || err != nil {
		t.Fatalf("empty directory: %v, %v", id, err)
	}
	want := testIdentity(t)
	if err := s.saveIdentity(want); err != nil {
		t.Fatal(err)
	}
	for path, mode := range map[string]os.FileMode{dir: 0o700, filepath.Join(dir, identityFile): 0o600} {
		st, err := os.Stat(path)
		if err != nil || st.Mode().Perm() != mode {
			t.Errorf("%s: mode %v, want %v (%v)", path, st.Mode().Perm(), mode, err)
		}
	}
	got, err := s.loadIdentity()
	if err != nil || !got.key.Equal(want.key) || got.Network != want.Network {
		t.Fatalf("read back %+v, %v", got, err)
	}
}

// A damaged identity file is an error that says what to do, at every length
// it can be cut to, and the file stays as it is.
func TestDamagedIdentityIsNeverReplaced(t *testing.T) {
	s, err := openState(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	if err := s.saveIdentity(testIdentity(t)); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(s.path, identityFile)
	whole, _ := os.ReadFile(file)
	for n := range len(whole) {
		os.WriteFile(file, whole[:n], 0o600)
		id, err := s.loadIdentity()
		if err == nil || id != nil {
			t.Fatalf("cut to %d of %d bytes: accepted", n, len(whole))
		}
		if !strings.Contains(err.Error(), "backup") && !strings.Contains(err.Error(), "schema") {
			t.Fatalf("cut to %d bytes: %v: no way out named", n, err)
		}
		if left, _ := os.ReadFile(file); len(left) != n {
			t.Fatalf("the damaged file was changed")
		}
	}
	os.WriteFile(file, []byte(strings.Replace(string(whole), "node/1", "node/9", 1)), 0o600)
	if _, err := s.loadIdentity(); err == nil || !strings.Contains(err.Error(), "newer") {
		t.Errorf("newer schema: %v", err)
	}
}

func TestSaveLeavesNoHalves(t *testing.T) {
	dir := t.TempDir()
	s, _ := openState(dir)
	left := filepath.Join(dir, ".node.json.123.tmp") // of a kill -9 in the middle
	os.WriteFile(left, []byte("half"), 0o600)
	if err := s.save("x.json", []byte("{}")); err != nil {
		t.Fatal(err)
	}
	s.close()
	s, err := openState(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	if _, err := os.Stat(left); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what a crash left is still there: %v", err)
	}
	if err := s.wipe(); err != nil {
		t.Fatal(err)
	}
}
