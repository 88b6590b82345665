//go:build e2e

package lab

import (
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"weft/coord/install"
	"weft/overlay/release"
)

// Release puts a release of the lab's own weft into dir (DATA/releases) like
// scripts/release, signed with the key in keyFile, which is made if missing. The
// programs of two versions differ. files are additional files by name. It returns the
// SHA-256 of weft.
func (l *Lab) Release(dir, keyFile, version string, files map[string][]byte) string {
	l.Helper()
	key, _, err := release.LoadKey(keyFile)
	if err != nil {
		l.Fatalf("%v", err)
	}
	program, err := os.ReadFile(filepath.Join(l.Bin, "weft"))
	if err != nil {
		l.Fatalf("%v", err)
	}
	m := release.Manifest{Schema: release.Schema, Version: version, Commit: strings.Repeat("0", 40), Time: time.Unix(1_750_000_000, 0).UTC()}
	all := map[string][]byte{"weft-linux-" + runtime.GOARCH: append(program, version...)} // bytes after the end of an ELF file have no effect
	for name, b := range files {
		all[name] = b
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		l.Fatalf("%v", err)
	}
	var first string
	for name, b := range all {
		sum := sha256.Sum256(b)
		parts := strings.Split(name, "-")
		m.Files = append(m.Files, release.File{Name: name, Program: parts[0], OS: parts[1], Arch: parts[2], Kind: "binary", Size: int64(len(b)), SHA256: hex.EncodeToString(sum[:])})
		if parts[2] == runtime.GOARCH {
			first = hex.EncodeToString(sum[:])
		}
		l.replace(filepath.Join(dir, name), b)
	}
	b, err := json.Marshal(m)
	if err != nil {
		l.Fatalf("%v", err)
	}
	l.replace(filepath.Join(dir, release.KeyName), release.EncodeKey(key.Public().(ed25519.PublicKey)))
	l.replace(filepath.Join(dir, release.SignatureName), release.Sign(key, b))
	l.replace(filepath.Join(dir, release.ManifestName), b) // last: the server watches this file
	return first
}

func (l *Lab) replace(path string, b []byte) {
	l.Helper()
	if err := os.WriteFile(path+".tmp", b, 0o644); err != nil {
		l.Fatalf("%v", err)
	}
	if err := os.Rename(path+".tmp", path); err != nil {
		l.Fatalf("%v", err)
	}
}

// InstallLine is the console's install line for a token; without a token, the line to
// which arguments are added.
func (s *Server) InstallLine(token string) string {
	return strings.TrimSpace(install.Offer{Base: s.URL, Pin: s.Pin()}.Line("", token))
}

// Pin is the pin of the site's certificate.
func (s *Server) Pin() string {
	s.Host.lab.Helper()
	var leaf *x509.Certificate
	s.Host.Do(func() {
		c, err := tls.Dial("tcp", strings.TrimPrefix(s.URL, "https://"), InsecureTLS)
		if err != nil {
			s.Host.lab.Fatalf("%v", err)
		}
		leaf = c.ConnectionState().PeerCertificates[0]
		c.Close()
	})
	return install.Pin(leaf)
}

// Reboot ends the system orderly and starts it again.
func (r *System) Reboot() {
	r.lab.Helper()
	r.stop()
	r.start()
}

// PowerOff ends it. Its files stay until the test ends.
func (r *System) PowerOff() { r.stop() }

// Copy boots a copy of a powered-off system on another machine, like an image written
// to two cards. packages are those of the original.
func (r *System) Copy(n *Namespace, packages ...string) *System {
	l := r.lab
	l.Helper()
	upper := filepath.Join(filepath.Dir(r.Dir), "upper")
	lower := append([]string{upper}, l.rootLayers(packages)...)
	c := &System{lab: l, Host: n, boot: r.boot, name: l.rootName()}
	work := filepath.Join(rootCache(), "run", c.name)
	c.Dir = filepath.Join(work, "root")
	l.Cleanup(func() { sweepRoot(work) })
	for _, d := range []string{"upper", "work", "root"} {
		if err := os.MkdirAll(filepath.Join(work, d), 0o755); err != nil {
			l.Fatalf("%v", err)
		}
	}
	unix.Unmount(r.Dir, unix.MNT_DETACH) // two mounts must not write to one layer
	if err := unix.Mount("overlay", c.Dir, "overlay", 0, "lowerdir="+strings.Join(lower, ":")+",upperdir="+work+"/upper,workdir="+work+"/work"); err != nil {
		l.Fatalf("mount a copy: %v", err)
	}
	c.start()
	return c
}
