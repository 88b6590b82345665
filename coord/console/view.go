package console

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"embed"
	"html/template"
	"io/fs"
	"net/http"
	"path"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"unicode"

	"weft/coord/ops"
	"weft/overlay/cert"
)

//go:embed templates/*.html
var templateFS embed.FS

// page is what every template gets.
type page struct {
	Name  string // of the template
	User  string // "" when not signed in
	Role  string // of the user
	Flash string
	Undo  *undo // beside Flash; nil: cannot be undone
	Net   network
	Data  any
	Nav   string   // the ID of the section it is in
	Parts tabsView // of that section
	Owner bool     // of the network
	Here  string   // the page's own address, when a form's answer shows it
	Theme string   // "light", "dark"; "": as the system says

	Style  template.CSS // the style sheet, if it stands in the page
	Events string       // address of the stream with what the page wants to hear

	Sections []section
	Themes   []theme
}

// undo is a form that undoes what a page says was done (undo.go).
type undo struct {
	Action string
	Fields []field
}

type field struct{ Name, Value string }

// Initial is what stands for a user in little space.
func (p page) Initial() string {
	for _, r := range p.User {
		return string(unicode.ToUpper(r))
	}
	return ""
}

// network is what the pages say of it.
type network struct{ ID, Suffix, Version string }

// flashes are the notes that a redirect may ask for: by name, so that an
// address cannot put words into the console's mouth.
var flashes = map[string]string{
	"undone":     "Undone.",
	"renamed":    "Renamed. The new name works at once; open connections go on.",
	"assigned":   "Changed. Its older certificates are revoked; it fetches the new one by itself.",
	"replaced":   "Replaced. The name leads to this device now; the old one's certificates are revoked.",
	"deleted":    "Deleted. Its certificates are revoked.",
	"revoked":    "Key revoked. Nothing can join with it any more.",
	"password":   "Password changed. All other sessions have ended.",
	"ended":      "Session ended.",
	"dns":        "Saved. Devices fetch it within seconds.",
	"names":      "Saved. Devices fetch it within seconds.",
	"codesoff":   "Codes are off. The password alone signs you in.",
	"passkey":    "Passkey added. From now on it signs you in, without a name or a password.",
	"nopasskey":  "Passkey removed. Delete it on your device too.",
	"others":     "All other sessions have ended.",
	"policy":     "Saved and in force. Devices fetch it within seconds.",
	"approved":   "Let in. It is one of your devices now.",
	"denied":     "Refused. The device is told so.",
	"reports":    "Saved. Devices fetch it within seconds.",
	"decided":    "Saved.",
	"person":     "Saved. It holds at once.",
	"invited":    "Invited. The link is below; it is shown to this browser only.",
	"uninvited":  "The invitation has ended. Its link does not work any more.",
	"suspended":  "Suspended. All sessions have ended.",
	"resumed":    "Resumed.",
	"norelay":    "Removed. Devices move to another relay within seconds.",
	"webhook":    "Made. Its secret is below; it is shown to this browser only.",
	"rotated":    "It has a new secret, below. The old one is good for a day longer.",
	"nowebhook":  "Deleted. Nothing is sent there any more.",
	"provider":   "Made. It is on the page of signing in.",
	"noprovider": "Removed. Whoever signed in there is signed out.",
	"service":    "Made. Now give it a token.",
	"notoken":    "Token revoked. It is refused from now on.",
	"nobody":     "Deleted. Nobody gets the name again.",
	"signed":     "Signed in. The device reaches what it did within seconds.",
}

// templates are the pages by their names. Each is parsed when it is first drawn: a server whose
// console nobody opens needs no memory for them.
var templates = pages()

func pages() map[string]func() *template.Template {
	base := sync.OnceValue(func() *template.Template {
		funcs := template.FuncMap{
			"asset":  assetPath,
			"early":  early,
			"plural": plural,
			"clean":  clean,
			"nth":    func(i int) int { return i + 1 }, // place in a list, in names that nothing else tells apart

			"commands": commandList,
			"copyOf":   copyOf,
			"path":     pathOf,
			"status":   statusOf,
		}
		return template.Must(template.New("base").Funcs(funcs).ParseFS(templateFS, "templates/layout.html", "templates/parts.html"))
	})
	set := make(map[string]func() *template.Template)
	for _, f := range must(templateFS.ReadDir("templates")) {
		name := strings.TrimSuffix(f.Name(), ".html")
		if name == "layout" || name == "parts" || strings.Contains(name, "_") {
			continue
		}
		set[name] = sync.OnceValue(func() *template.Template {
			page := template.Must(template.Must(base().Clone()).ParseFS(templateFS, "templates/"+f.Name()))
			// A tab of a page has a file of its own: NAME_TAB.html.
			if tabs := must(fs.Glob(templateFS, "templates/"+name+"_*.html")); len(tabs) > 0 {
				template.Must(page.ParseFS(templateFS, tabs...))
			}
			return page
		})
	}
	return set
}

// render answers with a whole page.
func (c *Console) render(v *visit, status int, name string, data any) error {
	p := page{Name: name, Data: data, Nav: navOf[name], Here: here(v, name), Flash: flashes[v.r.URL.Query().Get("done")], Theme: c.theme(v.r), Style: v.style(name)}
	if text, undo := v.noteHere(); p.Flash != "" {
		p.Flash, p.Undo = cmp.Or(text, p.Flash), undo
	}
	if v.actor.UserID != "" {
		p.User, p.Role, p.Owner = clean(v.actor.User), string(v.actor.Role), v.actor.Role == ops.RoleOwner
		p.Sections, p.Parts = sectionsOf(v.actor), partsOf(v.actor, name)
		p.Themes = themes(p.Theme)
		p.Events = eventsOf(data, v.mark)
	}
	v.w.Header().Set("Content-Security-Policy", p.policy())
	n := c.ops.Network()
	p.Net = network{ID: n.ID.String(), Suffix: n.Suffix, Version: c.ops.Software()}
	return c.execute(v, status, name, "layout", p)
}

// policy is the content security policy of a page: of what is written in it, it allows only
// the style sheet and the script that are ours.
func (p page) policy() string {
	policy := contentPolicy
	if p.Style != "" {
		policy += "; style-src 'self' " + assets()["style.css"].source
	}
	if p.Events != "" {
		policy += "; script-src 'self' " + assets()["early.js"].source
	}
	return policy
}

// here is where a page that answers a form lives, so that reloading it does not
// send the form again (static/script).
func here(v *visit, name string) string {
	if v.r.Method != http.MethodPost {
		return ""
	}
	switch name {
	case "device":
		if at, ok := strings.CutSuffix(v.r.URL.Path, "/test"); ok {
			return at
		}
		return path.Dir(v.r.URL.Path) + "/settings"
	case "bulk":
		return listPath(v.r.PostForm.Get("back"))
	case "add":
		return addPath(chosen(v.r.PostForm.Get("for"), v.r.PostForm.Get("kind")).ID)
	case "approve":
		return "/approve"
	case "newkey":
		return "/network/keys/new"
	case "account":
		return "/account"
	case "verify":
		return "/activity/verify"
	case "policy":
		return "/access/policy"
	case "totp":
		return "/account/codes/set-up"
	case "codes":
		return "/account"
	case "code":
		return "/sign-in"
	case "dns", "dnsroutes":
		return dnsPages[name]
	case "relay":
		return path.Dir(v.r.URL.Path)
	case "signinsettings":
		return "/settings/sign-in"
	case "provider":
		if v.r.URL.Path == "/settings/sign-in/new" {
			return v.r.URL.Path
		}
		return providerPath(cut(v.r.PostForm.Get("id"), 200))
	case "newwebhook":
		return "/settings/webhooks/new"
	case "newtoken":
		return "/settings/tokens/new"
	case "webhook":
		return "/settings/webhooks/" + v.r.PathValue("id")
	case "signin":
		return "/sign-in"
	case "identities":
		return "/people/waiting"
	case "invite":
		return "/people/invite"
	case "groups":
		return "/people/groups"
	case "person":
		return personPath(formName(v))
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
	if err := templates[name]().ExecuteTemplate(&b, part, data); err != nil {
		c.log.Error("render page", "page", name, "err", err)
		http.Error(v.w, "The server could not draw this page.", http.StatusInternalServerError)
		return nil
	}
	h := v.w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Add("Vary", "HX-Request")
	body := b.Bytes()
	if compressed[name] {
		h.Add("Vary", "Accept-Encoding")
		if len(body) >= worthIt && v.takesGzip() {
			h.Set("Content-Encoding", "gzip")
			w := packers.Get().(*gzip.Writer)
			body = pack(w, body)
			packers.Put(w)
		}
	}
	h.Set("Content-Length", strconv.Itoa(len(body)))
	v.w.WriteHeader(status)
	if v.r.Method != http.MethodHead {
		v.w.Write(body)
	}
	return nil
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
