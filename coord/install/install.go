// Package install serves a release (package overlay/release) to devices:
//
//	GET /install                   a shell script, made for this request
//	GET /install/NAME              a file that the release's manifest names
//	GET /install/for/KEY[/NAME]    the same, for a device that will join with this key; the
//	                               console shows the person who made the key that it is fetched
//
// The script contains the SHA-256 of each program and, if the server's certificate is
// self-signed, the pin of its key. So a device that runs the command that the console shows
// need trust nothing else. The directory is read again when its manifest has changed, so the
// owner only has to copy a release into it.
//
// A download takes an open file and 16 KB of memory for as long as it lasts, so there are at
// most 256 at a time, and 32 for one address. Further requests wait for downloadWait, and are
// then told to try again later.
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

// ErrNone means that the directory has no manifest.
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
	open    *release.Dir // nil for none
	changed time.Time    // modification time of the manifest that was read last
	err     error        // why there is none
}

// New serves the release in dir, which need not exist. log may be nil.
func New(dir string, log *slog.Logger) *Releases {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Releases{dir: dir, log: log, downloads: limited.NewBudget(downloads, downloadsEach)}
}

// Current returns the release in the directory, or an error that says why there is none. The
// release stays open until the next one replaces it; the caller does not close it.
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
		r.log.Error("cannot serve the release", "err", err)
		return nil, err
	}
	r.log.Info("serves a release", "version", d.Version, "files", len(d.Files))
	return d, nil
}

// drop closes the release. Requests that are reading one of its files have the file open, and
// continue. The caller holds mu.
func (r *Releases) drop(err error) {
	if r.open != nil {
		r.open.Close()
	}
	r.open, r.changed, r.err = nil, time.Time{}, err
}

// Close closes the release.
func (r *Releases) Close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.drop(errors.New("closed"))
}

// Key returns the public key with which the release is signed, nil if there is no release.
func (r *Releases) Key() []byte {
	d, err := r.Current()
	if err != nil {
		return nil
	}
	return d.Key
}

// Pin returns a hash of the certificate's key in the form of curl's --pinnedpubkey.
func Pin(leaf *x509.Certificate) string {
	sum := sha256.Sum256(leaf.RawSubjectPublicKeyInfo)
	return "sha256//" + base64.StdEncoding.EncodeToString(sum[:])
}

// Offer is a release with the address from which devices get it.
type Offer struct {
	Base     string // of the server, "https://HOST:PORT"
	Pin      string // of its certificate, "" for one that browsers trust
	Manifest *release.Manifest
}

// Line returns the command that a person pastes into a shell on a device. It installs weft, and
// joins with token. key is the id of the token's key, so that the console can show the progress;
// "" for no progress.
func (o Offer) Line(key, token string) string {
	return fmt.Sprintf("%s %s | sh -s -- %s", o.curl("curl"), o.Base+directory(key), token)
}

// WindowsLine returns the command for PowerShell, as an administrator. There is no script for
// Windows: the command fetches the program, compares it with the hash in the command, and the
// program installs itself. It returns "" if the release has no such program.
func (o Offer) WindowsLine(arch, key, token string) string {
	i := slices.IndexFunc(o.Manifest.Files, func(f release.File) bool {
		return f.Program == "weft" && f.Kind == "binary" && f.OS == "windows" && f.Arch == arch && plain(f.Name) && plain(f.SHA256)
	})
	if i < 0 {
		return ""
	}
	f := o.Manifest.Files[i]
	return fmt.Sprintf(`$f = "$env:TEMP\weft.exe"; %s -o $f %s; if ((Get-FileHash $f).Hash -eq '%s') { '%s' | & $f install --token-file - } else { throw 'weft: that is not the program of this line; try again' }`,
		o.curl("curl.exe"), o.Base+directory(key)+"/"+f.Name, f.SHA256, token)
}

func (o Offer) curl(program string) string {
	if o.Pin == "" {
		return program + " -fsSL"
	}
	return program + " -fsSLk --pinnedpubkey " + o.Pin
}

// Has reports whether the release has a program for a system, such as "linux" (GOOS).
func (o Offer) Has(system string) bool {
	return slices.ContainsFunc(o.Manifest.Files, func(f release.File) bool { return f.Program == "weft" && f.Kind == "binary" && f.OS == system })
}

// directory returns the path below which the files for a key are served.
func directory(key string) string {
	if key == "" {
		return "/install"
	}
	return "/install/for/" + key
}

// validKey reports whether a word has the form of a key's id.
func validKey(s string) bool {
	return len(s) > 0 && len(s) <= 64 && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") == ""
}

// Handler returns the handler of all paths. base returns the server's URL for a request
// ("https://HOST:PORT"); pin returns the pin of the certificate at that URL, "" if browsers trust
// it; from returns the client's address. seen, unless it is nil, is called when the script or a
// program is fetched for a key. Anybody can do that, so there may be no such key.
func (r *Releases) Handler(base func(*http.Request) string, pin func(base string) string, from func(*http.Request) netip.Addr, seen func(key string, program bool, from netip.Addr)) http.Handler {
	mux := http.NewServeMux()
	serve := func(pattern string, f http.HandlerFunc) {
		mux.HandleFunc("GET /install"+pattern, f)
		mux.HandleFunc("GET /install/for/{key}"+pattern, func(w http.ResponseWriter, req *http.Request) {
			key := req.PathValue("key")
			if !validKey(key) {
				http.Error(w, "there is no such key", http.StatusNotFound)
				return
			}
			if _, err := r.Current(); err == nil && seen != nil {
				seen(key, strings.HasPrefix(req.PathValue("name"), "weft-"), from(req))
			}
			f(w, req)
		})
	}
	serve("", func(w http.ResponseWriter, req *http.Request) {
		d, err := r.Current()
		if err != nil {
			// The answer is piped into sh, so it is a script that prints the error.
			w.Header().Set("Content-Type", "text/x-shellscript; charset=utf-8")
			w.WriteHeader(http.StatusServiceUnavailable)
			fmt.Fprintln(w, "echo 'weft: this server has no release to install; its owner makes one with: scripts/release --key FILE, and copies it to the releases directory of the server' >&2; exit 1")
			return
		}
		w.Header().Set("Content-Type", "text/x-shellscript; charset=utf-8")
		w.Header().Set("Cache-Control", "no-store")
		at := base(req)
		w.Write([]byte(Script(d.Manifest, at, pin(at), req.PathValue("key"))))
	})
	serve("/{name}", func(w http.ResponseWriter, req *http.Request) {
		r.downloads.Serve(w, req, from(req), downloadWait, func(w http.ResponseWriter, p *limited.Place) {
			defer p.Keep()()
			defer link.Keep(req)()
			r.file(w, req)
		})
	})
	return mux
}

// Script returns the installation script of a server at base, for a key ("" for none).
func Script(m *release.Manifest, base, pin, key string) string {
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
		"@VERSION@", version, "@BASE@", strings.Map(printable, base), "@BASE_QUOTED@", quote(base+directory(key)), "@PIN_QUOTED@", quote(pin),
		"@PROGRAMS@", strings.Join(programs, "\n"),
	).Replace(script)
}

// plain reports whether a word from a manifest needs no quoting in a script.
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

// file serves a file that the manifest names, or the manifest itself with its signature and
// key. It serves no other files of the directory.
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
		http.Error(w, "the manifest names this file, but it is missing on the server", http.StatusNotFound)
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
