package release

import (
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"weft/overlay/api/wiretest"
)

var update = flag.Bool("update", false, "record what is not recorded yet")

// A release signed in the past is still valid. One of a later version is valid, too, as
// long as it only adds fields; the signature covers them.
func TestRecordedRelease(t *testing.T) {
	const dir = "testdata/release-1"
	key := ed25519.NewKeyFromSeed([]byte("a seed of exactly thirty-two by."))
	want := &Manifest{Schema: Schema, Version: "1.0.0", Commit: strings.Repeat("ab", 20), Time: time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC),
		Files: []File{{Name: "weft-linux-arm64", Program: "weft", OS: "linux", Arch: "arm64", Kind: "binary", Size: 14_500_000, SHA256: strings.Repeat("cd", 32)}}}
	if _, err := os.Stat(dir); os.IsNotExist(err) && *update {
		b, _ := json.MarshalIndent(want, "", "\t")
		err := errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(filepath.Join(dir, ManifestName), b, 0o644),
			os.WriteFile(filepath.Join(dir, SignatureName), Sign(key, b), 0o644), os.WriteFile(filepath.Join(dir, KeyName), EncodeKey(key.Public().(ed25519.PublicKey)), 0o644))
		if err != nil {
			t.Fatal(err)
		}
	}
	d, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if !reflect.DeepEqual(d.Manifest, want) {
		t.Errorf("got %+v", d.Manifest)
	}
	recorded, err := d.Read(ManifestName)
	if err != nil {
		t.Fatal(err)
	}
	today, _ := json.Marshal(want)
	for _, lost := range wiretest.Lost(t, recorded, today, true) {
		t.Error(lost)
	}
	later := wiretest.Later(t, recorded)
	m, err := Verify(d.Key, later, Sign(key, later))
	if err != nil || !reflect.DeepEqual(m, want) {
		t.Errorf("later: %+v, %v", m, err)
	}
	sig, _ := d.Read(SignatureName)
	if _, err := Verify(d.Key, later, sig); !errors.Is(err, ErrSignature) {
		t.Errorf("fields added after the signature: %v", err)
	}
}
