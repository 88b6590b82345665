// Package install hands a release (package overlay/release) out to devices:
//
//	GET /install         a shell script, made for this request
//	GET /install/NAME    a file that the release's manifest names
//
// The script holds the SHA-256 of each program and, where the server's
// certificate is of its own making, the pin of its key, so that all trust in
// what is installed comes from the line that the console shows. The directory
// is read again when its manifest has changed: the owner copies a release in
// and is done.
//
// A download takes a file and 16 KB of memory for as long as it lasts, so there
// are at most 256 at a time, 32 for one address; who comes when there are more
// waits for a while and is then told to come back.
package install

import (
	"crypto/sha256"
	"crypto/x509"
	_ "embed"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"weft/overlay/cause"
	"weft/overlay/limited"
	"weft/overlay/link"
	"weft/overlay/release"
)

//go:embed install.sh
var script string

const (
	downloads     = 256
	downloadsEach = 32
	downloadWait  = 10 * time.Second
)

// ErrNone is of a directory without a manifest.
var ErrNone = errors.New("no release")

// Releases serves a release directory. Its methods may be called from any
// goroutine.
type Releases struct {
	// constant after New
	dir       string
	log       *slog.Logger
	downloads *limited.Budget

	mu sync.Mutex
	// mu guards the following.
	open    *release.Dir // nil while there is none
	changed time.Time    // modification time of its manifest
	err     error        // why there is none
}

// New serves the release in dir, which need not exist. log may be nil.
func New(dir string, log *slog.Logger) *Releases {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Releases{dir: dir, log: log, downloads: limited.NewBudget(downloads, downloadsEach)}
}

// Current returns the release in the directory; the error says why there is
// none. It stays open until the next one is there.
func (r *Releases) Current() (*release.Dir, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	fi, err := os.Stat(filepath.Join(r.dir, release.ManifestName))
	if err != nil {
		r.drop(fmt.Errorf("%w in %s: %w", ErrNone, r.dir, cause.Of(err)))
		return nil, r.err
	}
	if fi.ModTime().Equal(r.changed) {
		return r.open, r.err
	}
	d, err := release.Open(r.dir)
	r.drop(err)
	r.open, r.changed = d, fi.ModTime()
	if err != nil {
		r.log.Error("cannot hand the release out", "err", err)
		return nil, err
	}
	r.log.Info("hands a release out", "version", d.Version, "files", len(d.Files))
	return d, nil
}

// drop lets go of the release; a request that reads one of its files has that
// open. mu is held.
func (r *Releases) drop(err error) {
	if r.open != nil {
		r.open.Close()
	}
	r.open, r.changed, r.err = nil, time.Time{}, err
}

// Close lets go of the release.
func (r *Releases) Close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.drop(errors.New("closed"))
}

// Key returns the public key of the release's owner, nil when there is none.
func (r *Releases) Key() []byte {
	d, err := r.Current()
	if err != nil {
		return nil
	}
	return d.Key
}

// Pin is the certificate's key as curl's --pinnedpubkey wants it.
func Pin(leaf *x509.Certificate) string {
	sum := sha256.Sum256(leaf.RawSubjectPublicKeyInfo)
	return "sha256//" + base64.StdEncoding.EncodeToString(sum[:])
}

// Line is what a user pastes on a device. pin is "" for a certificate that
// browsers trust.
func Line(base, pin, token string) string {
	if pin == "" {
		return fmt.Sprintf("curl -fsSL %s/install | sh -s -- %s", base, token)
	}
	return fmt.Sprintf("curl -fsSLk --pinnedpubkey %s %s/install | sh -s -- %s", pin, base, token)
}

// Handler serves both addresses. base returns the server's own address for a
// request ("https://HOST:PORT"), pin the pin of the certificate that answers
// there, "" for one that browsers trust, from the client's address.
func (r *Releases) Handler(base func(*http.Request) string, pin func(base string) string, from func(*http.Request) netip.Addr) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /install", func(w http.ResponseWriter, req *http.Request) {
		d, err := r.Current()
		if err != nil {
			// sh is at the other end of the pipe: it, too, is told.
			w.Header().Set("Content-Type", "text/x-shellscript; charset=utf-8")
			w.WriteHeader(http.StatusServiceUnavailable)
			fmt.Fprintln(w, "echo 'weft: this server has no release to install; its owner makes one with: scripts/release --key FILE, and copies it to the releases directory of the server' >&2; exit 1")
			return
		}
		w.Header().Set("Content-Type", "text/x-shellscript; charset=utf-8")
		w.Header().Set("Cache-Control", "no-store")
		at := base(req)
		w.Write([]byte(Script(d.Manifest, at, pin(at))))
	})
	mux.HandleFunc("GET /install/{name}", func(w http.ResponseWriter, req *http.Request) {
		r.downloads.Serve(w, req, from(req), downloadWait, func(w http.ResponseWriter, p *limited.Place) {
			defer p.Keep()()
			defer link.Keep(req)()
			r.file(w, req)
		})
	})
	return mux
}

// Script returns the script for a server at base.
func Script(m *release.Manifest, base, pin string) string {
	var programs []string
	for _, f := range m.Files {
		if f.Program == "weft" && f.Kind == "binary" && plain(f.Name) && plain(f.OS) && plain(f.Arch) {
			programs = append(programs, fmt.Sprintf("%s %d %s %s %s", f.SHA256, (f.Size+1023)/1024, f.OS, f.Arch, f.Name))
		}
	}
	slices.Sort(programs)
	version := m.Version
	if !plain(version) {
		version = "of an unknown version"
	}
	return strings.NewReplacer(
		"@VERSION@", version, "@BASE@", strings.Map(printable, base), "@BASE_QUOTED@", quote(base+"/install"), "@PIN_QUOTED@", quote(pin),
		"@PROGRAMS@", strings.Join(programs, "\n"),
	).Replace(script)
}

// plain reports whether a word from a manifest can stand in a script as it is.
func plain(s string) bool {
	return s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._+~-") == ""
}

func printable(r rune) rune {
	if r < ' ' || r > '~' {
		return '?'
	}
	return r
}

func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// file serves what the manifest names, and nothing else that lies there.
func (r *Releases) file(w http.ResponseWriter, req *http.Request) {
	d, err := r.Current()
	if err != nil {
		http.Error(w, "no release", http.StatusServiceUnavailable)
		return
	}
	name := req.PathValue("name")
	if slices.Contains([]string{release.ManifestName, release.SignatureName, release.KeyName}, name) {
		b, err := d.Read(name)
		if err != nil {
			http.Error(w, "not there", http.StatusNotFound)
			return
		}
		w.Header().Set("Content-Type", "application/octet-stream")
		w.Write(b)
		return
	}
	i := slices.IndexFunc(d.Files, func(f release.File) bool { return f.Name == name })
	if i < 0 {
		http.Error(w, "there is no such file in this release", http.StatusNotFound)
		return
	}
	f, err := d.OpenFile(d.Files[i])
	if errors.Is(err, fs.ErrNotExist) {
		http.Error(w, "the manifest names it, but it is not there", http.StatusNotFound)
		return
	}
	if err != nil {
		http.Error(w, "cannot be read", http.StatusInternalServerError)
		return
	}
	defer f.Close()
	w.Header().Set("Content-Type", "application/octet-stream")
	http.ServeContent(w, req, "", d.Time, f)
}
