package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A report never contains secrets, and contains names and public addresses only on
// request.
func TestRedact(t *testing.T) {
	token := "weft1" + strings.Repeat("aB3", 30)
	parts := []part{
		{"status.json", []byte(`{"server":{"url":"https://weft.example:8443"},"self":{"name":"pi","fqdn":"kitchen.weft.internal"},
			"peers":[{"name":"kitchen-pi","fqdn":"kitchen-pi.weft.internal"},{"name":"kitchen","fqdn":"x"}]}`)},
		{"other.txt", []byte("kitchen-pi at 203.0.113.9:4000 and 10.0.0.7, 2001:db8::7, fe80::1; kitchen; weft.example; " + token +
			"\n-----BEGIN PRIVATE KEY-----\nabc\n-----END PRIVATE KEY-----\n203.0.113.9 at 12:30:05")},
	}
	redact(parts)
	got := string(parts[0].content) + string(parts[1].content)
	for _, gone := range []string{"kitchen", "203.0.113.9", "2001:db8::7", "weft.example", token, "abc"} {
		if strings.Contains(got, gone) {
			t.Errorf("%q is left in %s", gone, got)
		}
	}
	for _, there := range []string{"10.0.0.7", "fe80::1", "12:30:05", ":4000"} {
		if !strings.Contains(got, there) {
			t.Errorf("%q is missing from %s", there, got)
		}
	}
	at, _, _ := strings.Cut(strings.SplitN(got, " at ", 3)[1], ":")
	if strings.Count(got, at) != 2 {
		t.Errorf("the same address is not %q everywhere in %s", at, got)
	}
}

// TestWriteBundle reads the archive again.
func TestWriteBundle(t *testing.T) {
	path := filepath.Join(t.TempDir(), "b.tar.gz")
	parts := []part{{"version.txt", []byte("1\n")}, {"empty", nil}, {"block", bytes.Repeat([]byte("x"), 512)}, {"large", bytes.Repeat([]byte("y"), 100_001)}}
	if err := writeBundle(path, parts); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	r := tar.NewReader(z)
	for _, p := range parts {
		h, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		if err != nil || h.Name != "weft-bugreport/"+p.name || h.Mode != 0o600 || time.Since(h.ModTime) > time.Hour || !bytes.Equal(b, p.content) {
			t.Errorf("%+v, %d bytes, %v; want %s with %d", h, len(b), err, p.name, len(p.content))
		}
	}
	if _, err := r.Next(); err != io.EOF {
		t.Errorf("after the last file: %v", err)
	}
	if err := writeBundle(path, parts); !errors.Is(err, fs.ErrExist) {
		t.Errorf("an existing file: %v", err)
	}
}
