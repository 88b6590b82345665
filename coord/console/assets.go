package console

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"encoding/hex"
	"html/template"
	"mime"
	"net/http"
	"path"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"time"

	"weft/coord/ops"
)

//go:embed static
var staticFS embed.FS

// assets maps "style.css" to its content and the hash in its address. They are packed when
// the first one is asked for, or its address.
var assets = sync.OnceValue(loadAssets)

type asset struct {
	body   []byte
	packed []byte // the same by gzip
	tag    string
	source string // as a content security policy allows it in a page
}

// joined are the assets that are made of all files in a directory, in the order of their
// names.
var joined = map[string]string{"style": "style.css", "script": "console.js", "early": "early.js"}

func loadAssets() map[string]asset {
	m := make(map[string]asset)
	w := newPacker(gzip.BestCompression)
	for _, f := range must(staticFS.ReadDir("static")) {
		name, file := f.Name(), "static/"+f.Name()
		var b []byte
		if f.IsDir() {
			name = joined[name]
			for _, part := range must(staticFS.ReadDir(file)) {
				b = append(b, must(staticFS.ReadFile(file+"/"+part.Name()))...)
			}
			b = lean(name, b)
		} else {
			b = must(staticFS.ReadFile(file))
		}
		m[name] = newAsset(w, b)
	}
	// htmx begins as soon as it has run: its extension has to be there by then.
	m["htmx.js"] = newAsset(w, slices.Concat(m["htmx-4.0.1.min.js"].body, []byte("\n"), m["hx-sse-4.0.1.min.js"].body))
	return m
}

// lean leaves out what browsers have no use for: comments on lines of their own in scripts,
// and comments and space in style sheets. That is a tenth of what a first visit receives.
func lean(name string, b []byte) []byte {
	if path.Ext(name) == ".js" {
		return regexp.MustCompile(`(?m)^[ \t]*//.*\n`).ReplaceAll(b, nil)
	}
	b = replace(b, `"[^"\n]*"|(?s:/\*.*?\*/)`, func(s []byte) []byte {
		if s[0] == '/' {
			return []byte(" ") // as browsers read it
		}
		return s
	})
	return replace(b, `"[^"\n]*"|;?\s*}\s*|\s*[{;,]\s*|:\s+|\s+`, func(s []byte) []byte {
		if s[0] == '"' {
			return s
		}
		if s = bytes.TrimSpace(s); len(s) == 0 {
			return []byte(" ")
		}
		return s[len(s)-1:]
	})
}

func replace(b []byte, pattern string, with func([]byte) []byte) []byte {
	return regexp.MustCompile(pattern).ReplaceAllFunc(b, with)
}

func newAsset(w *gzip.Writer, b []byte) asset {
	sum := sha256.Sum256(b)
	return asset{b, pack(w, b), hex.EncodeToString(sum[:6]), "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"}
}

// early is the script that stands in the pages.
func early() template.JS { return template.JS(assets()["early.js"].body) }

// On a first visit the style sheet stands in the page, so that the page is drawn without
// asking again. A cookie says which one a browser was given: its next page has the address
// of the file, which it keeps. Without cookies each page has the whole sheet.
const (
	styleCookie = "-style"
	styleLife   = 365 * 24 * time.Hour // as long as the file may be kept
)

// style returns the style sheet for the page that answers a visit, or "": the page then has
// its address. It is not put into pages that are not compressed.
func (v *visit) style(name string) template.CSS {
	if !compressed[name] || v.partial() || !v.takesGzip() {
		return ""
	}
	a := assets()["style.css"]
	if ck, err := v.r.Cookie(v.cookieName(v.r, styleCookie)); err == nil && ck.Value == a.tag {
		return ""
	}
	http.SetCookie(v.w, v.newCookie(v.r, styleCookie, a.tag, styleLife))
	return template.CSS(a.body)
}

// must is for what is embedded: it fails with the build, not by input.
func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func assetPath(name string) string {
	a, ok := assets()[name]
	if !ok {
		panic("no asset " + name) // a template's mistake; tests render them all
	}
	return "/static/" + name + "?v=" + a.tag
}

func (c *Console) asset(v *visit) error {
	name := v.r.PathValue("file")
	a, ok := assets()[name]
	if !ok {
		return ops.ErrNotFound
	}
	h := v.w.Header()
	h.Set("Content-Type", mime.TypeByExtension(path.Ext(name)))
	if v.r.URL.Query().Get("v") == a.tag {
		h.Set("Cache-Control", "public, max-age=31536000, immutable")
	}
	tag := `"` + a.tag + `"`
	h.Set("ETag", tag)
	if v.r.Header.Get("If-None-Match") == tag {
		v.w.WriteHeader(http.StatusNotModified)
		return nil
	}
	// Not by http.ServeContent: each of its answers has a buffer of its own for as
	// long as the client does not read.
	body := a.body
	h.Set("Vary", "Accept-Encoding")
	if v.takesGzip() {
		body = a.packed
		h.Set("Content-Encoding", "gzip")
	}
	h.Set("Content-Length", strconv.Itoa(len(body)))
	if v.r.Method != http.MethodHead {
		v.w.Write(body)
	}
	return nil
}

func (c *Console) favicon(v *visit) error {
	http.Redirect(v.w, v.r, assetPath("favicon.svg"), http.StatusFound)
	return nil
}
