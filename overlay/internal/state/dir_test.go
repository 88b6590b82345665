package state

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"weft/overlay/cert"
	"weft/overlay/internal/network"
)

func testIdentity(t *testing.T) *network.Identity {
	t.Helper()
	id, err := network.NewIdentity(cert.NetworkID{1}, cert.Pin{2}, []string{"https://203.0.113.1"})
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func TestStateDirectoryIsLocked(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir); !errors.Is(err, ErrLocked) {
		t.Errorf("second daemon: %v, want %v", err, ErrLocked)
	}
	s.Close()
	again, err := Open(dir)
	if err != nil {
		t.Fatalf("after the first has gone: %v", err)
	}
	again.Close()
}

func TestIdentityIsPrivateAndWhole(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if id, err := s.LoadIdentity(); id != nil || err != nil {
		t.Fatalf("empty directory: %v, %v", id, err)
	}
	want := testIdentity(t)
	if err := s.SaveIdentity(want); err != nil {
		t.Fatal(err)
	}
	for path, mode := range map[string]os.FileMode{dir: 0o700, filepath.Join(dir, IdentityFile): 0o600} {
		st, err := os.Stat(path)
		if err != nil || st.Mode().Perm() != mode {
			t.Errorf("%s: mode %v, want %v (%v)", path, st.Mode().Perm(), mode, err)
		}
	}
	got, err := s.LoadIdentity()
	if err != nil || !got.Key.Equal(want.Key) || got.Network != want.Network {
		t.Fatalf("read back %+v, %v", got, err)
	}
}

// A damaged identity file, cut to any length, is an error that says what to do, and the
// file is not changed.
func TestDamagedIdentityIsNeverReplaced(t *testing.T) {
	s, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.SaveIdentity(testIdentity(t)); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(s.Path(), IdentityFile)
	whole, _ := os.ReadFile(file)
	for n := range len(whole) {
		os.WriteFile(file, whole[:n], 0o600)
		id, err := s.LoadIdentity()
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
	if _, err := s.LoadIdentity(); err == nil || !strings.Contains(err.Error(), "newer") {
		t.Errorf("newer schema: %v", err)
	}
}

func TestSaveLeavesNoHalves(t *testing.T) {
	dir := t.TempDir()
	s, _ := Open(dir)
	left := filepath.Join(dir, ".node.json.123.tmp") // left by a kill -9
	os.WriteFile(left, []byte("half"), 0o600)
	if err := s.Save("x.json", []byte("{}")); err != nil {
		t.Fatal(err)
	}
	s.Close()
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := os.Stat(left); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what a crash left is still there: %v", err)
	}
	if err := s.Wipe(); err != nil {
		t.Fatal(err)
	}
}

// Several files are saved together, or none of them.
func TestSaveTogether(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	save := func(v string) error { return s.SaveJSON(Content{ConfigFile, v}, Content{IdentityFile, v}) }
	holds := func(want string) {
		t.Helper()
		for _, name := range []string{ConfigFile, IdentityFile} {
			if b := s.Load(name); string(b) != want {
				t.Errorf("%s holds %q, want %q", name, b, want)
			}
		}
	}
	if err := save("old"); err != nil {
		t.Fatal(err)
	}
	holds(`"old"`)
	if err := s.SaveJSON(Content{ConfigFile, "new"}, Content{IdentityFile, func() {}}); err == nil {
		t.Error("a function is not JSON")
	}
	holds(`"old"`)
	if err := s.SaveJSON(Content{ConfigFile, "new"}, Content{"no/such/directory", "new"}); err == nil {
		t.Error("saved where there is no directory")
	}
	holds(`"old"`)
	if left, _ := filepath.Glob(filepath.Join(dir, ".*.tmp")); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	if err := save("new"); err != nil {
		t.Fatal(err)
	}
	holds(`"new"`)
}
