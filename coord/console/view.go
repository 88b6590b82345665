package console

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"html/template"
	"mime"
	"net/http"
	"net/netip"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"weft/coord/ops"
	"weft/overlay/cert"
)

//go:embed templates/*.html
var templateFS embed.FS

//go:embed static
var staticFS embed.FS

// page is what every template gets.
type page struct {
	Name  string // of the template
	User  string // "" when not signed in
	Flash string
	Net   network
	Data  any
	Nav   string // "devices", "dns", "keys", "account"
	Owner bool   // of the network
	Here  string // the page's own address, when a form's answer shows it
}

// network is what the pages say of it.
type network struct{ ID, Suffix, Version string }

// flashes are the notes that a redirect may ask for: by name, so that an
// address cannot put words into the console's mouth.
var flashes = map[string]string{
	"renamed":  "Renamed. The new name works at once; open connections go on.",
	"replaced": "Replaced. The name leads to this device now; the old one's certificates are revoked.",
	"deleted":  "Deleted. Its certificates are revoked.",
	"revoked":  "Key revoked. Nothing can join with it any more.",
	"password": "Password changed. All other sessions have ended.",
	"ended":    "Session ended.",
	"dns":      "Saved. Devices fetch it within seconds.",
	"names":    "Saved. Devices fetch it within seconds.",
	"others":   "All other sessions have ended.",
}

var navOf = map[string]string{"devices": "devices", "device": "devices", "replace": "devices", "add": "devices", "join": "devices", "dns": "dns", "keys": "keys", "newkey": "keys", "account": "account"}

var templates = parseTemplates()

func parseTemplates() map[string]*template.Template {
	funcs := template.FuncMap{
		"asset":  assetPath,
		"plural": plural,
		"clean":  clean,
	}
	base := template.Must(template.New("base").Funcs(funcs).ParseFS(templateFS, "templates/layout.html", "templates/parts.html"))
	set := make(map[string]*template.Template)
	files, err := templateFS.ReadDir("templates")
	if err != nil {
		panic(err) // embedded: a failed build, not input
	}
	for _, f := range files {
		name := strings.TrimSuffix(f.Name(), ".html")
		if name == "layout" || name == "parts" {
			continue
		}
		set[name] = template.Must(template.Must(base.Clone()).ParseFS(templateFS, "templates/"+f.Name()))
	}
	return set
}

// render answers with a whole page.
func (c *Console) render(v *visit, status int, name string, data any) error {
	p := page{Name: name, Data: data, Nav: navOf[name], Here: here(v, name), Flash: flashes[v.r.URL.Query().Get("done")]}
	if v.actor.UserID != "" {
		p.User, p.Owner = clean(v.actor.User), v.actor.Role == ops.RoleOwner
	}
	n := c.ops.Network()
	p.Net = network{ID: n.ID.String(), Suffix: n.Suffix, Version: c.ops.Software()}
	return c.execute(v, status, name, "layout", p)
}

// here is where a page that answers a form lives, so that reloading it does not
// send the form again (console.js).
func here(v *visit, name string) string {
	if v.r.Method != http.MethodPost {
		return ""
	}
	switch name {
	case "device":
		return path.Dir(v.r.URL.Path)
	case "add":
		if v.r.PostForm.Get("kind") == "laptop" {
			return "/add/laptop"
		}
		return "/add/device"
	case "newkey":
		return "/keys/new"
	case "account":
		return "/account"
	case "dns":
		return "/dns"
	case "signin":
		return "/sign-in"
	}
	return ""
}

// fragment answers with one named part of a page's template.
func (c *Console) fragment(v *visit, name, part string, data any) error {
	return c.execute(v, http.StatusOK, name, part, data)
}

// execute renders fully before it writes, so that a failure is not half a page.
func (c *Console) execute(v *visit, status int, name, part string, data any) error {
	var b bytes.Buffer
	if err := templates[name].ExecuteTemplate(&b, part, data); err != nil {
		c.log.Error("render page", "page", name, "err", err)
		http.Error(v.w, "The server could not draw this page.", http.StatusInternalServerError)
		return nil
	}
	h := v.w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Length", strconv.Itoa(b.Len()))
	h.Add("Vary", "HX-Request")
	v.w.WriteHeader(status)
	if v.r.Method != http.MethodHead {
		v.w.Write(b.Bytes())
	}
	return nil
}

// assets maps "style.css" to its content and the hash in its address.
var assets = loadAssets()

type asset struct {
	body []byte
	tag  string
}

func loadAssets() map[string]asset {
	m := make(map[string]asset)
	files, err := staticFS.ReadDir("static")
	if err != nil {
		panic(err) // embedded
	}
	for _, f := range files {
		b, err := staticFS.ReadFile("static/" + f.Name())
		if err != nil {
			panic(err)
		}
		sum := sha256.Sum256(b)
		m[f.Name()] = asset{b, hex.EncodeToString(sum[:6])}
	}
	return m
}

func assetPath(name string) string {
	a, ok := assets[name]
	if !ok {
		panic("no asset " + name) // a template's mistake; tests render them all
	}
	return "/static/" + name + "?v=" + a.tag
}

func (c *Console) asset(v *visit) error {
	name := v.r.PathValue("file")
	a, ok := assets[name]
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
	h.Set("Content-Length", strconv.Itoa(len(a.body)))
	v.w.Write(a.body)
	return nil
}

func (c *Console) favicon(v *visit) error {
	http.Redirect(v.w, v.r, assetPath("favicon.svg"), http.StatusFound)
	return nil
}

// clean makes a foreign string safe to look at: at most 120 characters, no
// control characters, and nothing invisible that reorders or hides text. What
// is taken out is shown as its code, so that it cannot pass for something else.
// Templates still escape the result.
func clean(s string) string {
	const most, marks = 120, 3
	var b strings.Builder
	n, combining := 0, 0
	for i, r := range s {
		if n++; n > most {
			b.WriteString("…")
			break
		}
		if unicode.Is(unicode.M, r) {
			if combining++; combining > marks {
				continue
			}
		} else {
			combining = 0
		}
		switch {
		case r == utf8.RuneError:
			if _, size := utf8.DecodeRuneInString(s[i:]); size <= 1 {
				b.WriteString("�")
				continue
			}
			b.WriteRune(r)
		case r == ' ' || unicode.IsGraphic(r) && !unicode.IsSpace(r):
			b.WriteRune(r)
		default:
			fmt.Fprintf(&b, "\\u%04x", r)
		}
	}
	return b.String()
}

// asTyped is lines in a form that sends them back: whole, but those that hide
// something.
func asTyped(lines []string) string {
	out := slices.Clone(lines)
	for i, l := range out {
		if strings.ContainsFunc(l, func(r rune) bool {
			return r == utf8.RuneError || r != ' ' && (!unicode.IsGraphic(r) || unicode.IsSpace(r))
		}) {
			out[i] = clean(l)
		}
	}
	return strings.Join(out, "\n")
}

func cleanAll(in []string) []string {
	var out []string
	for i, s := range in {
		if i == 12 {
			return append(out, "…")
		}
		out = append(out, clean(s))
	}
	return out
}

// idPattern is what an id in an address or a live event's name looks like.
var idPattern = regexp.MustCompile(`^[0-9A-Za-z_-]{1,64}$`)

// pathID returns the {id} of the address.
func (v *visit) pathID() (string, error) {
	id := v.r.PathValue("id")
	if !idPattern.MatchString(id) {
		return "", ops.ErrNotFound
	}
	return id, nil
}

// nodeID returns the {id} of a device in the address.
func (v *visit) nodeID() (cert.NodeID, error) {
	id, err := cert.ParseNodeID(v.r.PathValue("id"))
	if err != nil {
		return id, ops.ErrNotFound
	}
	return id, nil
}

// label is a DNS label: the only kind of name that goes into a command line.
var label = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// domain is a full name made of labels.
var domain = regexp.MustCompile(`^([a-z0-9-]{1,63}\.)*[a-z0-9-]{1,63}$`)

// shortTime is a time next to now, in words.
func shortTime(t, now time.Time) string {
	d := now.Sub(t)
	switch {
	case t.IsZero():
		return "never"
	case d < 0:
		return until(-d)
	case d < time.Minute:
		return "just now"
	case d < time.Hour:
		return fmt.Sprintf("%d min ago", int(d.Minutes()))
	case d < 24*time.Hour:
		return fmt.Sprintf("%d h ago", int(d.Hours()))
	case d < 48*time.Hour:
		return "yesterday"
	case d < 30*24*time.Hour:
		return fmt.Sprintf("%d days ago", int(d.Hours()/24))
	}
	return t.Format("2 Jan 2006")
}

func until(d time.Duration) string {
	switch {
	case d < time.Minute:
		return "in under a minute"
	case d < time.Hour:
		return fmt.Sprintf("in %d min", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("in %d h", int(d.Hours()+0.5))
	}
	return "in " + plural(int(d.Hours()/24+0.5), "day")
}

// orZero is a time that may be unknown: zero, then.
func orZero(t *time.Time) (z time.Time) {
	if t != nil {
		return *t
	}
	return z
}

// stamp is a time with its exact value for hovering and machines.
type stamp struct {
	Text, Full, Machine string
}

func (c *Console) stamp(t time.Time) stamp {
	if t.IsZero() {
		return stamp{Text: "never"}
	}
	t = t.UTC()
	return stamp{shortTime(t, c.now()), t.Format("2 January 2006, 15:04:05 UTC"), t.Format(time.RFC3339)}
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return thousands(n) + " " + noun + "s"
}

// thousands groups digits: 50,000.
func thousands(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

func addrText(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.WithZone("").String()
}

// latencyText rounds to what a person compares.
func latencyText(d time.Duration) string {
	ms := float64(d) / float64(time.Millisecond)
	switch {
	case ms < 1:
		return fmt.Sprintf("%.2f ms", ms)
	case ms < 100:
		return fmt.Sprintf("%.1f ms", ms)
	}
	return fmt.Sprintf("%.0f ms", ms)
}

var osNames = map[string]string{"linux": "Linux", "darwin": "macOS", "windows": "Windows", "freebsd": "FreeBSD", "openbsd": "OpenBSD", "android": "Android", "ios": "iOS"}

// osText turns "linux/arm64" into "Linux, arm64".
func osText(s string) string {
	name, arch, ok := strings.Cut(clean(s), "/")
	if full := osNames[name]; full != "" {
		name = full
	}
	if ok && arch != "" {
		return name + ", " + arch
	}
	return name
}

// agentText turns a User-Agent into "Firefox on Linux".
func agentText(ua string) string {
	find := func(pairs ...string) string {
		for i := 0; i < len(pairs); i += 2 {
			if strings.Contains(ua, pairs[i]) {
				return pairs[i+1]
			}
		}
		return ""
	}
	browser := find("Firefox/", "Firefox", "Edg/", "Edge", "OPR/", "Opera", "Chromium/", "Chromium", "Chrome/", "Chrome", "Safari/", "Safari", "curl/", "curl")
	system := find("Android", "Android", "iPhone", "iPhone", "iPad", "iPad", "Windows", "Windows", "Mac OS X", "macOS", "CrOS", "ChromeOS", "Linux", "Linux")
	switch {
	case browser != "" && system != "":
		return browser + " on " + system
	case browser != "":
		return browser
	case ua == "":
		return "Unknown browser"
	}
	r := []rune(clean(ua))
	if len(r) > 40 {
		return string(r[:40]) + "…"
	}
	return string(r)
}
