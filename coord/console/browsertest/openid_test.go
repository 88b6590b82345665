//go:build browser

package browsertest

import (
	"bufio"
	"database/sql"
	"encoding/json"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"weft/coord/console"
	"weft/coord/console/consoletest"
	"weft/coord/ops"
)

// openID is a running provider of scripts/tools/openid.
type openID struct {
	issuer string
	stop   func()
}

type openIDPerson struct {
	ID, Username, Password, FirstName, LastName, Email string
	EmailVerified                                      bool
}

// buildOpenID builds the provider, which is in a module of its own.
func buildOpenID(t *testing.T) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "openid")
	build := exec.Command("go", "build", "-C", "../../../scripts/tools", "-o", program, "./openid")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the provider: %v\n%s", err, out)
	}
	return program
}

// startOpenID starts a provider, and has the network use it.
func startOpenID(t *testing.T, program string, network *consoletest.Network, site, id string, people []openIDPerson, change func(*ops.SetProvider)) *openID {
	t.Helper()
	bySubject := map[string]openIDPerson{}
	for _, p := range people {
		bySubject[p.ID] = p
	}
	b, err := json.Marshal(bySubject)
	file := filepath.Join(t.TempDir(), "people.json")
	if err == nil {
		err = os.WriteFile(file, b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	client, secret := "weft-"+id, "secret-of-"+id
	c := exec.Command(program, file, client, secret, site+"/sign-in/with/"+id+"/answer")
	c.Stderr = os.Stderr
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	p := &openID{stop: func() { in.Close(); c.Wait() }}
	t.Cleanup(p.stop)
	line, err := bufio.NewReader(out).ReadString('\n')
	if p.issuer = strings.TrimSpace(line); err != nil {
		t.Fatalf("start the provider: %v", err)
	}
	set := ops.SetProvider{ID: id, New: true, Issuer: &p.issuer, ClientID: &client, Secret: &secret}
	if change != nil {
		change(&set)
	}
	if _, err := ops.Do(t.Context(), network.Service, ops.Root(), set); err != nil {
		t.Fatal(err)
	}
	return p
}

// visitor is a browser without pages: it has cookies, and follows links.
type visitor struct {
	*http.Client
	t    *testing.T
	site string
}

func visit(t *testing.T, site string) *visitor {
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &visitor{&http.Client{Jar: jar}, t, site}
}

// read is the status and the text of an answer.
func (v *visitor) read(res *http.Response, err error) (int, string) {
	v.t.Helper()
	if err != nil {
		v.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		v.t.Fatal(err)
	}
	return res.StatusCode, string(b)
}

func (v *visitor) want(res *http.Response, err error, status int, texts ...string) string {
	v.t.Helper()
	got, body := v.read(res, err)
	if got != status {
		v.t.Fatalf("status %d, want %d:\n%s", got, status, body)
	}
	for _, text := range texts {
		if !strings.Contains(body, text) {
			v.t.Errorf("no %q in\n%s", text, body)
		}
	}
	return body
}

var hiddenID = regexp.MustCompile(`name="id" value="([^"]+)"`)

// ask goes to a provider and signs in there; it returns the address of the answer, where
// it did not go.
func (v *visitor) ask(p *openID, id, name string) string {
	v.t.Helper()
	res, err := v.Get(v.site + "/sign-in/with/" + id)
	body := v.want(res, err, 200)
	m := hiddenID.FindStringSubmatch(body)
	if m == nil || !strings.HasPrefix(res.Request.URL.String(), p.issuer+"/login/") {
		v.t.Fatalf("at %s:\n%s", res.Request.URL, body)
	}
	var answer string
	v.CheckRedirect = func(r *http.Request, _ []*http.Request) error {
		if strings.HasPrefix(r.URL.String(), v.site+"/") {
			answer = r.URL.String()
			return http.ErrUseLastResponse
		}
		return nil
	}
	v.read(v.PostForm(p.issuer+"/login/username", url.Values{"id": {m[1]}, "username": {name}, "password": {"right"}}))
	v.CheckRedirect = nil
	if answer == "" {
		v.t.Fatal("the provider gives no answer")
	}
	return answer
}

// Two providers that others have written, with people of the same subject, name and mail
// address: each is somebody else here. The server at a provider's end refuses what ours
// would not notice.
func TestOpenID(t *testing.T) {
	program := buildOpenID(t)
	network := consoletest.New(t, consoletest.Options{})
	c := console.New(console.Config{Service: network.Service})
	server := httptest.NewServer(c)
	t.Cleanup(func() { c.Close(); server.Close() })
	site := server.URL
	people := []openIDPerson{
		{ID: "subject-1", Username: "alice", Password: "right", FirstName: "Alice", LastName: "<b>A</b>", Email: "alice@example.org", EmailVerified: true},
		{ID: "subject-2", Username: "bob", Password: "right", Email: "alice@example.org"},
	}
	scopes := "profile email offline_access"
	work := startOpenID(t, program, network, site, "work", people, func(c *ops.SetProvider) { c.Scopes = &scopes })
	claim, mail, name := "email", "alice@example.org", "name"
	home := startOpenID(t, program, network, site, "home", people, func(c *ops.SetProvider) {
		c.AdmitClaim, c.AdmitValue, c.NameClaim = &claim, &mail, &name
	})

	// Who is new waits, with the name and the address that the provider tells.
	alice := visit(t, site)
	res, err := alice.Get(alice.ask(work, "work", "alice"))
	alice.want(res, err, 403, "You are not approved yet", "subject-1")
	waiting, err := network.Identities(t.Context(), ops.Root())
	if err != nil || len(waiting) != 1 || waiting[0].Issuer != work.issuer || waiting[0].Subject != "subject-1" || waiting[0].Name != "alice" || waiting[0].Mail != mail {
		t.Fatalf("%+v, %v", waiting, err)
	}
	if _, err := ops.Do(t.Context(), network.Service, ops.Root(), ops.ApproveIdentity{ID: waiting[0].ID}); err != nil {
		t.Fatal(err)
	}
	answer := alice.ask(work, "work", "alice")
	res, err = alice.Get(answer)
	alice.want(res, err, 200, "Add your first device")
	res, err = alice.Get(site + "/account")
	alice.want(res, err, 200, "<bdi>alice</bdi>", "with another provider")

	// An answer is good once; its code is not good for another question either.
	thief := visit(t, site)
	res, err = thief.Get(answer)
	thief.want(res, err, 422, "no answer to a question")
	res, err = alice.Get(answer)
	alice.want(res, err, 422, "no answer to a question")
	code := func(of string) string { u, _ := url.Parse(of); return u.Query().Get("code") }
	with := func(answer, code string) string {
		u, _ := url.Parse(answer)
		q := u.Query()
		q.Set("code", code)
		u.RawQuery = q.Encode()
		return u.String()
	}
	res, err = thief.Get(with(thief.ask(work, "work", "bob"), code(answer)))
	thief.want(res, err, 422, "did not prove who you are")
	// A code that nobody has used, but that was given for the question of another browser:
	// the provider refuses it, for the verifier does not fit.
	victim := visit(t, site)
	stolen := code(victim.ask(work, "work", "alice"))
	res, err = thief.Get(with(thief.ask(work, "work", "bob"), stolen))
	thief.want(res, err, 422, "did not prove who you are")

	// Mixed up: an answer of one provider is none of the other, in either way.
	mixed := visit(t, site)
	res, err = mixed.Get(strings.Replace(mixed.ask(home, "home", "alice"), "/with/home/", "/with/work/", 1))
	mixed.want(res, err, 422, "no answer to a question")
	ours := code(mixed.ask(home, "home", "alice"))
	res, err = mixed.Get(with(mixed.ask(work, "work", "alice"), ours))
	mixed.want(res, err, 422, "did not prove who you are")

	// The other provider's alice is another person; a rule lets her in by an address that
	// is verified there, and not him who only claims it.
	other := visit(t, site)
	res, err = other.Get(other.ask(home, "home", "bob"))
	other.want(res, err, 403, "You are not approved yet", "subject-2")
	res, err = other.Get(other.ask(home, "home", "alice"))
	other.want(res, err, 200, "Add your first device")
	res, err = other.Get(site + "/account")
	other.want(res, err, 200, "<bdi>Alice-bAb</bdi>")

	// When a session is over the provider is asked to extend it, with a refresh token that
	// it gives once; without the provider it ends, and nothing else does.
	over := func() {
		network.Change(func(db *sql.DB) {
			if _, err := db.Exec(`UPDATE sessions SET expires_at = 1 WHERE provider = 'work'`); err != nil {
				t.Error(err)
			}
		})
	}
	for range 2 {
		over()
		res, err = alice.Get(site + "/devices")
		alice.want(res, err, 200, "Add your first device")
	}
	work.stop()
	over()
	res, err = alice.Get(site + "/devices")
	alice.want(res, err, 401)
	res, err = other.Get(site + "/devices")
	other.want(res, err, 200)
	res, err = visit(t, site).Get(site + "/sign-in")
	other.want(res, err, 200, "Sign in with home")
}
