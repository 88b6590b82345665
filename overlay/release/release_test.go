package release

import (
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// written makes a release directory with one file.
func written(t *testing.T) (dir string, key ed25519.PrivateKey) {
	t.Helper()
	dir = t.TempDir()
	key, made, err := LoadKey(filepath.Join(t.TempDir(), "key"))
	if err != nil || !made {
		t.Fatalf("made %v, %v", made, err)
	}
	if err := os.WriteFile(filepath.Join(dir, "weft-linux-amd64"), []byte("program"), 0o755); err != nil {
		t.Fatal(err)
	}
	size, sum, err := Sum(filepath.Join(dir, "weft-linux-amd64"))
	if err != nil {
		t.Fatal(err)
	}
	m, err := json.Marshal(Manifest{Schema: Schema, Version: "1", Files: []File{
		{Name: "weft-linux-amd64", Program: "weft", OS: "linux", Arch: "amd64", Kind: "binary", Size: size, SHA256: sum},
	}})
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{ManifestName: m, SignatureName: Sign(key, m), KeyName: EncodeKey(key.Public().(ed25519.PublicKey))} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir, key
}

func TestOpen(t *testing.T) {
	dir, key := written(t)
	d, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if len(d.Files) == 0 || d.Files[0].Size != 7 || !d.Names("weft", d.Files[0].SHA256) || d.Names("weft-server", d.Files[0].SHA256) || !d.Key.Equal(key.Public()) {
		t.Errorf("found %+v", d.Files)
	}
	if _, err := Open(t.TempDir()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("empty directory: %v", err)
	}
}

func TestKeyIsMadeOnceAndPrivate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	a, _, err := LoadKey(path)
	if err != nil {
		t.Fatal(err)
	}
	b, made, err := LoadKey(path)
	if err != nil || made || !a.Equal(b) {
		t.Errorf("made %v, %v", made, err)
	}
	if fi, _ := os.Stat(path); fi.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", fi.Mode())
	}
	os.WriteFile(path, []byte("junk"), 0o600)
	if _, _, err := LoadKey(path); err == nil {
		t.Error("junk was read as a key")
	}
}

// A bad signature, another key, a truncated or changed manifest.
func TestForgeriesAreRefused(t *testing.T) {
	dir, key := written(t)
	m, _ := os.ReadFile(filepath.Join(dir, ManifestName))
	sig := Sign(key, m)
	pub := key.Public().(ed25519.PublicKey)
	if _, err := Verify(pub, m, sig); err != nil {
		t.Fatal(err)
	}
	other, _, _ := ed25519.GenerateKey(nil)
	for name, c := range map[string]struct {
		key    ed25519.PublicKey
		m, sig []byte
	}{
		"other key": {other, m, sig},
		"no key":    {nil, m, sig},
		"changed":   {pub, []byte(strings.Replace(string(m), `"1"`, `"2"`, 1)), sig},
		"cut":       {pub, m[:len(m)-1], sig},
		"no sig":    {pub, m, nil},
		"cut sig":   {pub, m, sig[:20]},
		"bare":      {pub, m, encode(ed25519.Sign(key, m))},
	} {
		if _, err := Verify(c.key, c.m, c.sig); !errors.Is(err, ErrSignature) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	sum := strings.Repeat("0", 64)
	for _, bad := range []string{
		"", "{}", `{"schema":"weft-release/2"}`,
		`{"schema":"weft-release/1","files":[{"name":"../weft","sha256":"` + sum + `"}]}`,
		`{"schema":"weft-release/1","files":[{"name":"a/b","sha256":"` + sum + `"}]}`,
		`{"schema":"weft-release/1","files":[{"name":"","sha256":"` + sum + `"}]}`,
		`{"schema":"weft-release/1","files":[{"name":"weft","sha256":"00"}]}`,
		`{"schema":"weft-release/1","files":[{"name":"weft","size":-1,"sha256":"` + sum + `"}]}`,
		`{"schema":"weft-release/1","files":[{"name":"weft","size":99999999999,"sha256":"` + sum + `"}]}`,
		strings.Repeat(" ", MaxManifest+1),
	} {
		if _, err := Parse([]byte(bad)); err == nil {
			t.Errorf("%.80q was parsed", bad)
		}
	}
}

func FuzzVerify(f *testing.F) {
	f.Add([]byte(`{"schema":"weft-release/1","files":[{"name":"weft"}]}`), []byte("AAAA"))
	pub, _, _ := ed25519.GenerateKey(nil)
	f.Fuzz(func(t *testing.T, manifest, sig []byte) {
		if _, err := Verify(pub, manifest, sig); err == nil {
			t.Error("verified")
		}
		if m, err := Parse(manifest); err == nil && (m.Schema != Schema || len(m.Files) > maxFiles) {
			t.Error("parsed out of bounds")
		}
	})
}
