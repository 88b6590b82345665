package console_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"weft/coord/audit"
	"weft/coord/console"
	"weft/coord/console/consoletest"
	"weft/coord/ops"
	"weft/coord/passhash"
)

const password = "correct horse battery"

// site is a console with its network, its clock and its log.
type site struct {
	t       *testing.T
	net     *consoletest.Network
	console *console.Console
	server  *httptest.Server
	log     *syncBuffer

	mu    sync.Mutex
	now   time.Time
	serve http.Handler // what the server serves

	transport http.RoundTripper // of browsers, nil for the usual
}

// use has the server serve another console.
func (s *site) use(c *console.Console) {
	s.t.Cleanup(c.Close)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.console, s.serve = c, c
}

func (s *site) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	h := s.serve
	s.mu.Unlock()
	h.ServeHTTP(w, r)
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func (s *site) Now() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now
}

func (s *site) advance(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now = s.now.Add(d)
}

func newSite(t *testing.T, options ...func(*console.Config)) *site {
	t.Helper()
	return newSiteWith(t, consoletest.Options{}, options...)
}

func newSiteWith(t *testing.T, o consoletest.Options, options ...func(*console.Config)) *site {
	t.Helper()
	s := &site{t: t, log: &syncBuffer{}, now: time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)}
	o.Now, o.Log = s.Now, slog.New(slog.NewTextHandler(s.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	s.net = consoletest.New(t, o)
	cfg := console.Config{Service: s.net.Service, Now: s.Now, Heartbeat: 20 * time.Millisecond, Log: o.Log, Passwords: passhash.Cost{Passes: 1, Memory: 64}}
	for _, o := range options {
		o(&cfg)
	}
	s.server = httptest.NewServer(s)
	t.Cleanup(s.server.Close)
	s.use(console.New(cfg))
	return s
}

// household is a small network.
func (s *site) household() map[string]*consoletest.Device {
	s.t.Helper()
	devices := map[string]*consoletest.Device{}
	for _, d := range []struct {
		name, os string
		tags     []string
		online   bool
	}{
		{"kitchen-pi", "linux/arm64", []string{"device"}, true},
		{"garage-door", "linux/arm", []string{"device", "sensor"}, true},
		{"greenhouse", "linux/mipsle", []string{"device", "sensor"}, false},
		{"nas", "linux/amd64", []string{"device"}, true},
		{"anna-laptop", "darwin/arm64", nil, true},
		{"workbench", "windows/amd64", nil, false},
		{"weather-station", "linux/arm", []string{"device", "sensor"}, false},
	} {
		devices[d.name] = s.net.Add(d.name, d.os, d.tags...)
		if d.online {
			devices[d.name].Connect()
		}
	}
	return devices
}

// token finds the token on a page that shows how to join.
func (a answer) token(t *testing.T) string {
	t.Helper()
	token := regexp.MustCompile(`weft1[0-9A-Za-z_-]{40,}`).FindString(a.body)
	if token == "" {
		t.Fatalf("no token in\n%s", a.body)
	}
	return token
}

// browser is a client with cookies that does not follow redirects.
type browser struct {
	*site
	http.Client
}

func (s *site) browser() *browser {
	jar, err := cookiejar.New(nil)
	if err != nil {
		s.t.Fatal(err)
	}
	return &browser{s, http.Client{Transport: s.transport, Jar: jar, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
}

// answer is a response whose body was read.
type answer struct {
	*http.Response
	body string
}

func (b *browser) do(req *http.Request) answer {
	b.t.Helper()
	res, err := b.Client.Do(req)
	if err != nil {
		b.t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	return answer{res, string(body)}
}

func (b *browser) request(method, path string, form url.Values) *http.Request {
	b.t.Helper()
	var body io.Reader
	if form != nil {
		body = strings.NewReader(form.Encode())
	}
	req, err := http.NewRequest(method, b.server.URL+path, body)
	if err != nil {
		b.t.Fatal(err)
	}
	if method == "POST" {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		req.Header.Set("Origin", b.server.URL)
		req.Header.Set("Sec-Fetch-Site", "same-origin")
	}
	return req
}

func (b *browser) get(path string) answer { b.t.Helper(); return b.do(b.request("GET", path, nil)) }

func (b *browser) post(path string, kv ...string) answer {
	b.t.Helper()
	return b.do(b.request("POST", path, form(kv...)))
}

func form(kv ...string) url.Values {
	f := url.Values{}
	for i := 0; i < len(kv); i += 2 {
		f.Add(kv[i], kv[i+1])
	}
	return f
}

func (a answer) want(t *testing.T, status int, contains ...string) answer {
	t.Helper()
	if a.StatusCode != status {
		t.Fatalf("%s %s: status %d, want %d\n%s", a.Request.Method, a.Request.URL.Path, a.StatusCode, status, a.body)
	}
	for _, c := range contains {
		if !strings.Contains(a.body, c) {
			t.Fatalf("%s %s: no %q in\n%s", a.Request.Method, a.Request.URL.Path, c, a.body)
		}
	}
	return a
}

// enter signs in with a one-time link and sets the password.
func (b *browser) enter() *browser { b.t.Helper(); return b.enterAs("admin") }

func (b *browser) enterAs(user string) *browser {
	b.t.Helper()
	link := b.net.Link(user)
	u, err := url.Parse(link)
	if err != nil {
		b.t.Fatal(err)
	}
	b.get(link).want(b.t, 200, "Choose a password", `value="`+user+`"`)
	b.post("/welcome", "link", u.Query().Get("link"), "password", password).want(b.t, 303)
	return b
}

// signIn signs in with the password.
func (b *browser) signIn() *browser {
	b.t.Helper()
	a := b.post("/sign-in", "name", "admin", "password", password).want(b.t, 303)
	if got := a.Header.Get("Location"); got != "/devices" {
		b.t.Fatalf("location %q", got)
	}
	return b
}

func (b *browser) cookie() *http.Cookie {
	u, _ := url.Parse(b.server.URL)
	for _, c := range b.Jar.Cookies(u) {
		if strings.HasPrefix(strings.TrimPrefix(c.Name, "__Host-"), "weft") && !strings.HasSuffix(c.Name, "-known") {
			return c
		}
	}
	return &http.Cookie{}
}

func TestFirstRun(t *testing.T) {
	s := newSite(t)
	b := s.browser()
	b.get("/").want(t, 401, "Sign in")
	b.enter()
	b.get("/devices").want(t, 200, "Add your first device", "/add/device", "/add/laptop")

	// Add a device: token, commands, QR code; waiting; joined; tested.
	b.get("/add/device").want(t, 200)
	a := b.post("/network/keys", "kind", "device", "tags", "device", "life", "24h", "note", "kitchen").want(t, 303)
	at := a.Header.Get("Location")
	page := b.get(at).want(t, 200, "<svg", "Waiting for the device")
	token := page.token(t)
	page.want(t, 200, "weft run --token "+token)
	d, err := s.net.Join(token, "kitchen-pi", "linux/arm64")
	if err != nil {
		t.Fatal(err)
	}
	joined := b.get(at).want(t, 200, "kitchen-pi", "has joined", "Waiting for its connection")
	if strings.Contains(joined.body, token) {
		t.Error("a used token is still shown")
	}
	d.Connect()
	test := "/devices/" + d.ID.String() + "/test"
	b.get(at).want(t, 200, `hx-post="`+test+`"`)
	req := b.request("POST", test, url.Values{})
	req.Header.Set("HX-Request", "true")
	part := b.do(req).want(t, 200, " ms</b>", "relay")
	if strings.Contains(part.body, "<html") {
		t.Error("htmx got a whole page")
	}
	b.post(test).want(t, 200, " ms</b>", "<html", `aria-label="Round trip to kitchen-pi: `)
	d.Disconnect()
	b.post(test).want(t, 200, "no connection to a relay")

	// A laptop is untagged and joins with "weft up".
	a = b.post("/network/keys", "kind", "laptop", "life", "1h", "tags", "ignored").want(t, 303)
	id := strings.Split(a.Header.Get("Location"), "/")[3]
	if k, err := s.net.Key(t.Context(), ops.Root(), id); err != nil || len(k.Tags) != 0 || k.Reusable || k.Expires.Sub(k.Created) != time.Hour {
		t.Errorf("laptop key %+v, %v", k, err)
	}
	page = b.get(a.Header.Get("Location"))
	page.want(t, 200, "weft up "+page.token(t))
}

func TestRenameAndDelete(t *testing.T) {
	s := newSite(t)
	b := s.browser().enter()
	d := s.household()["kitchen-pi"].Show()
	at := "/devices/" + d.ID.String()
	b.get(at).want(t, 200, "weft ssh kitchen-pi", d.IPv4.String(), d.IPv6.String())

	for _, bad := range []string{"", "-x", "x-", "a b", "a/b", "../x", "a\"\nProxyCommand x", "<script>", strings.Repeat("x", 64), "ki\u202etchen", "1234", "xn--épi"} {
		b.post(at+"/rename", "name", bad).want(t, 422, "A name has")
	}
	b.post(at+"/rename", "name", "nas").want(t, 422, "Another device has this name")
	b.post(at+"/rename", "name", " Larder-Pi ").want(t, 303)
	b.get(at+"?done=renamed").want(t, 200, "larder-pi.weft.internal", "Renamed")
	b.get(at+"/settings").want(t, 200, `value="larder-pi"`)

	before := s.net.State()
	b.post(at+"/delete", "name", "").want(t, 422, "not its name")
	b.post(at+"/delete", "name", "kitchen-pi").want(t, 422, "not its name")
	if s.net.State() != before {
		t.Error("a refused delete changed something")
	}
	b.post(at+"/delete", "name", "larder-pi").want(t, 303)
	b.get(at).want(t, 404)
	b.post(at+"/delete", "name", "larder-pi").want(t, 404)
}

func TestReplaceDevice(t *testing.T) {
	s := newSite(t)
	b := s.browser().enter()
	old, fresh := s.household()["kitchen-pi"], s.net.Add("kitchen-pi", "linux/arm64", "device")
	at := "/devices/" + fresh.ID.String()
	b.get(at+"/settings").want(t, 200, `id="old" name="old" value="kitchen-pi"`)
	if page := b.get("/devices/"+old.ID.String()+"/settings").want(t, 200); strings.Contains(page.body, `value="kitchen-pi-1"`) {
		t.Error("the old device offers to replace the new one")
	}
	before := s.net.State()
	for typed, says := range map[string]string{"": "Name the device", "nobody": "No device has", "../x": "No device has", "kitchen-pi-1": "this device itself", "<b>x": "&lt;b&gt;x"} {
		b.get(at+"/replace?old="+url.QueryEscape(typed)).want(t, 422, says)
	}
	b.get(at+"/replace?old=Kitchen-Pi").want(t, 200, "Replace <bdi>kitchen-pi</bdi>?", `name="old" value="`+old.ID.String()+`"`, "online: whoever uses it", "It keeps its addresses")
	b.post(at+"/replace").want(t, 400)
	b.post(at+"/replace", "old", fresh.ID.String()).want(t, 400)
	b.post(at+"/replace", "old", "nothing").want(t, 404)
	if s.net.State() != before {
		t.Error("asking changed something")
	}
	b.post(at+"/replace", "old", old.ID.String()).want(t, 303)
	b.get(at+"?done=replaced").want(t, 200, "kitchen-pi.weft.internal", "Replaced.")
	b.get("/devices/"+old.ID.String()).want(t, 404)
}

func TestDeviceList(t *testing.T) {
	s := newSite(t)
	b := s.browser().enter()
	s.household()
	all := b.get("/devices").want(t, 200, "kitchen-pi", "workbench")
	if n := strings.Count(all.body, `<tr role="row" id=`); n != 7 {
		t.Errorf("%d rows", n)
	}
	online := b.get("/devices?state=online").want(t, 200, "kitchen-pi")
	if strings.Contains(online.body, "workbench") {
		t.Error("an offline device among the online ones")
	}
	if found := b.get("/devices?q=SENSOR+mips").want(t, 200, "greenhouse"); strings.Contains(found.body, "garage-door") {
		t.Error("search does not narrow")
	}
	b.get("/devices?q=%3Cb%3Enothing").want(t, 200, "Nothing matches", "&lt;b&gt;nothing")
	b.get("/devices?from=99999999999999999999&state=x").want(t, 200, "kitchen-pi")
	var units []string
	for i := range 120 {
		units = append(units, fmt.Sprintf("unit-%03d", i))
	}
	s.net.AddMany(units, "linux/arm", "device")
	b.get("/devices?q=unit").want(t, 200, "1–50 of 120 devices", `href="/devices?from=50&amp;q=unit" rel="next"`)
	b.get("/devices?q=unit&from=100").want(t, 200, "101–120 of 120 devices", `rel="prev"`)
}

// A certificate whose renewal fails for days is seen before it ends.
func TestCertificateIsLate(t *testing.T) {
	s := newSite(t)
	b := s.browser().enter()
	d := s.net.Add("pi", "linux/arm64", "device")
	d.Connect()
	at, joined := "/devices/"+d.ID.String(), s.Now()
	for _, c := range []struct {
		left      time.Duration
		row, page string
	}{
		{60 * 24 * time.Hour, "", "It is renewed by itself"},
		{20 * 24 * time.Hour, "certificate ends", "weft doctor"},
		{-time.Hour, "certificate ended", "weft doctor"},
	} {
		s.advance(joined.Add(90*24*time.Hour - c.left).Sub(s.Now()))
		b.signIn()
		page := b.get("/devices").want(t, 200, c.row)
		if c.row == "" && strings.Contains(page.body, "certificate") {
			t.Errorf("%s: the list speaks of the certificate", c.left)
		}
		b.get(at).want(t, 200, c.page)
	}
	// One of three days.
	if _, err := ops.Do(t.Context(), s.net.Service, ops.Root(), ops.DeleteDevice{ID: d.ID}); err != nil {
		t.Fatal(err)
	}
	made, err := ops.Do(t.Context(), s.net.Service, ops.Root(), ops.CreateKey{Ephemeral: true, Tags: []string{"device"}})
	if err != nil {
		t.Fatal(err)
	}
	if d, err = s.net.Join(made.Token, "box", "linux/arm64"); err != nil {
		t.Fatal(err)
	}
	s.advance(24 * time.Hour)
	if page := b.get("/devices").want(t, 200, "box"); strings.Contains(page.body, "certificate") {
		t.Error("a short certificate is taken for one that was not renewed")
	}
	b.get("/devices/"+d.ID.String()).want(t, 200, "It is renewed by itself")
}

// The list of devices says when the revocation list is full.
func TestRevocationList(t *testing.T) {
	for _, c := range []struct {
		full, left int
		want       string
	}{{49, 0, ""}, {50, 0, "The revocation list is 50 % full."}, {99, 3, "3 deleted certificates found no room"}} {
		text := console.RevocationsText(ops.Revocations{Bytes: c.full * 10, Max: 1000, Left: c.left})
		if c.want == "" && text != "" || !strings.Contains(text, c.want) {
			t.Errorf("%d %%: %q, want %q", c.full, text, c.want)
		}
	}
}

// A device's page says when it was renamed too often.
func TestRenamedTooOften(t *testing.T) {
	s := newSite(t)
	b := s.browser().enter()
	d, old := s.net.Add("pi", "linux/arm64", "device"), s.net.Add("old", "linux/arm64", "device")
	at := "/devices/" + d.ID.String()
	for i := range 20 {
		b.post(at+"/rename", "name", []string{"hall", "door"}[i%2]).want(t, 303)
	}
	before := s.net.State()
	b.post(at+"/rename", "name", "hall").want(t, 422, "Door was renamed 20 times within a day, which is the maximum; try again after")
	b.post(at+"/replace", "old", old.ID.String()).want(t, 422, "Door was renamed 20 times within a day")
	if s.net.State() != before {
		t.Error("what was refused changed something")
	}
	s.advance(25 * time.Hour)
	b.post(at+"/rename", "name", "hall").want(t, 303)
}

// TestRoutes tries every route as everybody. A route that is
// not in this table fails.
func TestRoutes(t *testing.T) {
	type want struct{ none, signedIn int }
	table := map[string]want{
		"GET /static/{file}":                     {200, 200},
		"GET /favicon.ico":                       {302, 302},
		"GET /welcome":                           {410, 410},
		"POST /welcome":                          {410, 410},
		"POST /welcome/passkey/options":          {404, 404},
		"GET /sign-in":                           {200, 303},
		"POST /sign-in":                          {422, 422},
		"GET /sign-in/again":                     {401, 200},
		"POST /sign-in/code":                     {422, 422},
		"GET /sign-in/with/{id}":                 {404, 404},
		"GET /sign-in/with/{id}/answer":          {404, 404},
		"POST /account/codes/prove":              {401, 404},
		"POST /sign-in/passkey/options":          {404, 404},
		"POST /sign-in/passkey":                  {422, 422},
		"POST /account/passkeys/options":         {401, 404},
		"POST /account/passkeys":                 {401, 422},
		"POST /account/passkeys/{id}/remove":     {401, 404},
		"GET /account/codes/set-up":              {401, 200},
		"POST /account/codes":                    {401, 303},
		"POST /account/codes/off":                {401, 303},
		"POST /account/codes/recovery":           {401, 404},
		"POST /sign-out":                         {401, 303},
		"POST /theme":                            {401, 400},
		"GET /{$}":                               {401, 303},
		"GET /events":                            {401, 200},
		"GET /palette":                           {401, 200},
		"GET /style":                             {401, 404},
		"GET /devices":                           {401, 200},
		"GET /devices/export":                    {401, 200},
		"GET /devices/ids":                       {401, 200},
		"POST /devices/list/view":                {401, 303},
		"POST /devices/list/change":              {401, 400},
		"GET /devices/{id}":                      {401, 404},
		"GET /devices/{id}/activity":             {401, 404},
		"GET /devices/{id}/settings":             {401, 404},
		"POST /devices/{id}/undo":                {401, 404},
		"POST /devices/{id}/rename":              {401, 404},
		"GET /devices/{id}/replace":              {401, 404},
		"POST /devices/{id}/replace":             {401, 404},
		"POST /devices/{id}/delete":              {401, 404},
		"POST /devices/{id}/test":                {401, 404},
		"POST /devices/{id}/dns":                 {401, 400},
		"POST /devices/{id}/assign":              {401, 404},
		"GET /dns":                               {401, 308},
		"GET /add":                               {401, 200},
		"GET /add/device":                        {401, 200},
		"GET /add/laptop":                        {401, 200},
		"GET /approve":                           {401, 200},
		"POST /approve":                          {401, 422},
		"POST /approve/deny":                     {401, 404},
		"GET /keys":                              {401, 308},
		"POST /keys":                             {401, 422},
		"GET /people":                            {401, 200},
		"GET /people/invite":                     {401, 200},
		"POST /people/invite":                    {401, 422},
		"GET /people/person":                     {401, 404},
		"POST /people/person/edit":               {401, 404},
		"POST /people/person/groups":             {401, 404},
		"POST /people/person/suspend":            {401, 404},
		"POST /people/person/resume":             {401, 404},
		"POST /people/person/invite":             {401, 404},
		"POST /people/person/revoke":             {401, 404},
		"POST /people/person/delete":             {401, 404},
		"GET /people/groups":                     {401, 200},
		"POST /people/groups":                    {401, 422},
		"POST /people/groups/delete":             {401, 404},
		"GET /people/waiting":                    {401, 200},
		"POST /people/waiting/{id}/approve":      {401, 404},
		"POST /people/waiting/{id}/deny":         {401, 404},
		"GET /account":                           {401, 200},
		"POST /account/password":                 {401, 422},
		"POST /account/sessions/{id}/end":        {401, 404},
		"POST /account/sessions/end-others":      {401, 303},
		"GET /access":                            {401, 200},
		"GET /access/policy":                     {401, 200},
		"GET /access/tests":                      {401, 200},
		"GET /access/tags":                       {401, 200},
		"GET /access/history":                    {401, 200},
		"GET /access/can":                        {401, 303},
		"POST /access":                           {401, 422},
		"POST /access/check":                     {401, 422},
		"POST /access/revert":                    {401, 400},
		"GET /activity":                          {401, 200},
		"GET /activity/export":                   {401, 200},
		"GET /activity/newer":                    {401, 303},
		"GET /activity/verify":                   {401, 200},
		"POST /activity/verify":                  {401, 200},
		"GET /activity/introductions":            {401, 200},
		"POST /activity/introductions":           {401, 400},
		"GET /network":                           {401, 200},
		"GET /network/relays/{id}":               {401, 404},
		"POST /network/relays/{id}/remove":       {401, 404},
		"GET /network/dns":                       {401, 200},
		"GET /network/dns/routes":                {401, 200},
		"GET /network/dns/try":                   {401, 200},
		"GET /network/dns/preview":               {401, 303},
		"POST /network/dns/records":              {401, 422},
		"POST /network/dns/records/{id}/remove":  {401, 422},
		"POST /network/dns/routes":               {401, 422},
		"POST /network/dns/routes/remove":        {401, 422},
		"POST /network/dns/nameservers":          {401, 303},
		"POST /network/dns/search":               {401, 303},
		"POST /network/dns/options":              {401, 422},
		"POST /network/dns/aliases/remove":       {401, 422},
		"GET /keys/{rest...}":                    {401, 308},
		"GET /settings":                          {401, 200},
		"GET /settings/sign-in":                  {401, 200},
		"POST /settings/sign-in":                 {401, 422},
		"POST /settings/sign-in/passkeys":        {401, 422},
		"GET /settings/sign-in/new":              {401, 200},
		"POST /settings/sign-in/new":             {401, 422},
		"GET /settings/sign-in/provider":         {401, 404},
		"POST /settings/sign-in/provider":        {401, 422},
		"POST /settings/sign-in/provider/remove": {401, 404},
		"GET /settings/webhooks":                 {401, 200},
		"GET /settings/webhooks/new":             {401, 200},
		"POST /settings/webhooks/new":            {401, 422},
		"GET /settings/webhooks/{id}":            {401, 404},
		"POST /settings/webhooks/{id}":           {401, 404},
		"POST /settings/webhooks/{id}/enable":    {401, 404},
		"POST /settings/webhooks/{id}/disable":   {401, 404},
		"POST /settings/webhooks/{id}/test":      {401, 404},
		"POST /settings/webhooks/{id}/rotate":    {401, 404},
		"POST /settings/webhooks/{id}/delete":    {401, 404},
		"GET /settings/tokens":                   {401, 200},
		"GET /settings/tokens/new":               {401, 200},
		"POST /settings/tokens/new":              {401, 422},
		"POST /settings/tokens/services":         {401, 422},
		"POST /settings/tokens/{id}/revoke":      {401, 404},
		"GET /settings/releases":                 {401, 200},
		"GET /network/keys/{id}/join":            {401, 404},
		"GET /network/keys":                      {401, 200},
		"GET /network/keys/new":                  {401, 200},
		"POST /network/keys":                     {401, 422},
		"POST /network/keys/{id}/revoke":         {401, 404},
	}
	for pattern := range console.Routes() {
		if _, ok := table[pattern]; !ok {
			t.Errorf("route %q is not in the table of this test", pattern)
		}
	}
	for pattern, w := range table {
		needsSession, ok := console.Routes()[pattern]
		if !ok {
			t.Errorf("no route %q", pattern)
		}
		if needsSession != (w.none == 401) {
			t.Errorf("%s: needs a session: %v", pattern, needsSession)
		}
	}
	for who, enter := range map[string]func(*site, *browser){
		"none": func(*site, *browser) {},
		"forged": func(s *site, b *browser) {
			u, _ := url.Parse(s.server.URL)
			b.Jar.SetCookies(u, []*http.Cookie{{Name: "weft-" + u.Port(), Value: ops.NewToken()}})
		},
		"signed in": func(s *site, b *browser) { b.signIn() },
		"ended": func(s *site, b *browser) {
			b.signIn()
			s.net.EndSessions("admin")
		},
		"idle": func(s *site, b *browser) {
			b.signIn()
			s.advance(8 * 24 * time.Hour)
		},
		"old": func(s *site, b *browser) {
			b.signIn()
			for range 5 {
				b.get("/devices").want(t, 200) // it is not idle
				s.advance(6 * 24 * time.Hour)
			}
		},
	} {
		t.Run(who, func(t *testing.T) {
			s := newSite(t)
			s.browser().enter()
			for _, pattern := range slices.Sorted(maps.Keys(table)) {
				b, status := s.browser(), table[pattern].none
				if who == "signed in" {
					status = table[pattern].signedIn
				}
				enter(s, b)
				before := s.net.State()
				method, path, _ := strings.Cut(pattern, " ")
				path = strings.NewReplacer("{id}", "0123456789abcdef", "{file}", "style.css", "{$}", "").Replace(path)
				var f url.Values
				if method == "POST" {
					f = url.Values{}
				}
				ctx, cancel := context.WithCancel(context.Background())
				res, err := b.Client.Do(b.request(method, path, f).WithContext(ctx))
				if err != nil {
					cancel()
					t.Fatal(err)
				}
				if res.StatusCode != status {
					t.Errorf("%s: status %d, want %d", pattern, res.StatusCode, status)
				}
				checkHeaders(t, res)
				cancel()
				res.Body.Close()
				if after := s.net.State(); status == 401 && after != before && who != "idle" && who != "old" {
					t.Errorf("%s: state changed:\n%s\n---\n%s", pattern, before, after)
				}
			}
		})
	}
}

func checkHeaders(t *testing.T, res *http.Response) {
	t.Helper()
	csp := res.Header.Get("Content-Security-Policy")
	for _, part := range []string{"default-src 'self'", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'self'", "object-src 'none'"} {
		if !strings.Contains(csp, part) {
			t.Errorf("policy %q lacks %s", csp, part)
		}
	}
	if strings.Contains(csp, "unsafe") || strings.Contains(csp, "*") || strings.Contains(csp, "data:") {
		t.Errorf("policy %q", csp)
	}
	for k, v := range map[string]string{
		"X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Referrer-Policy": "same-origin",
		"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Resource-Policy": "same-origin", "Cache-Control": "no-store",
	} {
		if got := res.Header.Get(k); got != v {
			t.Errorf("%s: %q, want %q", k, got, v)
		}
	}
	if res.Header.Get("Access-Control-Allow-Origin") != "" {
		t.Error("another origin may read this")
	}
}

// TestCrossSite: a valid cookie, and a request that another
// site made the browser send.
func TestCrossSite(t *testing.T) {
	s := newSite(t)
	b := s.browser().enter()
	device := s.net.Add("kitchen-pi", "linux/arm64", "device")
	id := device.ID.String()
	keys, err := s.net.Keys(t.Context(), ops.Root(), 1)
	if err != nil {
		t.Fatal(err)
	}
	forms := map[string]url.Values{
		"POST /devices/{id}/rename":         form("name", "taken-over"),
		"POST /devices/{id}/delete":         form("name", device.Name),
		"POST /network/keys":                form("kind", "device", "tags", "device", "life", "1h"),
		"POST /network/keys/{id}/revoke":    {},
		"POST /devices/list/change":         form("do", "delete-now", "id", id, "typed", device.Name),
		"POST /account/password":            form("current", password, "password", "another good one"),
		"POST /account/sessions/end-others": {},
		"POST /sign-in":                     form("name", "admin", "password", password),
		"POST /sign-out":                    {},
		"POST /people/waiting/{id}/approve": {},
		"POST /people/waiting/{id}/deny":    {},
		"POST /account/codes/recovery":      {},
		"POST /account/codes/off":           {},
	}
	if _, err := ops.Do(t.Context(), s.net.Service, ops.Actor{Via: ops.ViaConsole}, ops.SignInWithProvider{Who: ops.Foreigner{Provider: "x", Issuer: "https://x.example", Subject: "x"}}); err != nil {
		t.Fatal(err)
	}
	waiting, err := s.net.Identities(t.Context(), ops.Root())
	if err != nil {
		t.Fatal(err)
	}
	s.browser().signIn()
	before := s.net.State()
	for pattern := range console.Routes() {
		method, path, _ := strings.Cut(pattern, " ")
		if method != "POST" {
			continue
		}
		one := id
		if strings.HasPrefix(path, "/network/keys/") {
			one = keys[0].ID
		}
		if strings.HasPrefix(path, "/people/waiting/") {
			one = waiting[0].ID
		}
		path = strings.ReplaceAll(path, "{id}", one)
		f := forms[pattern]
		if f == nil {
			f = url.Values{}
		}
		for name, change := range map[string]func(*http.Request){
			"origin evil":     func(r *http.Request) { r.Header.Set("Origin", "https://evil.example"); r.Header.Del("Sec-Fetch-Site") },
			"origin null":     func(r *http.Request) { r.Header.Set("Origin", "null"); r.Header.Del("Sec-Fetch-Site") },
			"other port":      func(r *http.Request) { r.Header.Set("Origin", "http://127.0.0.1:1"); r.Header.Del("Sec-Fetch-Site") },
			"cross-site":      func(r *http.Request) { r.Header.Del("Origin"); r.Header.Set("Sec-Fetch-Site", "cross-site") },
			"same-site":       func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "same-site") },
			"text/plain form": func(r *http.Request) { r.Header.Set("Content-Type", "text/plain") },
			"multipart form":  func(r *http.Request) { r.Header.Set("Content-Type", "multipart/form-data; boundary=x") },
			"no type": func(r *http.Request) {
				r.Header.Del("Content-Type")
				r.Body, r.ContentLength = io.NopCloser(strings.NewReader("a=b")), 3
			},
			"GET":                         func(r *http.Request) { r.Method, r.Body, r.ContentLength = "GET", nil, 0; r.URL.RawQuery = f.Encode() },
			"PUT":                         func(r *http.Request) { r.Method = "PUT" },
			"POST with method in a field": func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "cross-site"); r.URL.RawQuery = "_method=GET" },
		} {
			if _, isPage := console.Routes()["GET "+strings.TrimPrefix(pattern, "POST ")]; name == "GET" && isPage {
				continue // a page of its own at the same address
			}
			req := b.request(method, path, f)
			change(req)
			a := b.do(req)
			if a.StatusCode != 403 && a.StatusCode != 405 && a.StatusCode != 415 {
				t.Errorf("%s %s with %s: status %d", method, path, name, a.StatusCode)
			}
			if after := s.net.State(); after != before {
				t.Fatalf("%s %s with %s changed something", method, path, name)
			}
		}
	}
}

// TestCookies: nothing but the server can read or set the session, and not for long.
func TestCookies(t *testing.T) {
	s := newSite(t, func(c *console.Config) { c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")} })
	b := s.browser().enter()
	first := b.cookie().Value

	set := b.post("/sign-in", "name", "admin", "password", password).want(t, 303).Response.Cookies()
	if len(set) != 2 {
		t.Fatalf("cookies %v", set)
	}
	if k := set[1]; !k.HttpOnly || k.Path != "/" || k.Domain != "" || k.SameSite != http.SameSiteLaxMode || k.Name != set[0].Name+"-known" || k.MaxAge <= 0 {
		t.Errorf("cookie %v", k)
	}
	c := set[0]
	if c.Value == first || len(c.Value) != 43 {
		t.Error("signing in keeps the session token")
	}
	if !c.HttpOnly || c.Path != "/" || c.Domain != "" || c.SameSite != http.SameSiteLaxMode || !strings.HasPrefix(c.Name, "weft-") {
		t.Errorf("cookie %v", c)
	}
	if n := len(s.net.SessionsOf("admin")); n != 1 {
		t.Errorf("%d sessions; the old one should have ended", n)
	}

	// Over TLS, or what a trusted proxy says is TLS.
	req := b.request("POST", "/sign-in", form("name", "admin", "password", password))
	req.Header.Set("X-Forwarded-Proto", "https")
	req.Header.Set("Origin", strings.Replace(s.server.URL, "http", "https", 1))
	c = b.do(req).want(t, 303).Response.Cookies()[0]
	if c.Name != "__Host-weft" || !c.Secure || !c.HttpOnly || c.Path != "/" || c.Domain != "" || c.SameSite != http.SameSiteLaxMode {
		t.Errorf("cookie over TLS %v", c)
	}
	tls := httptest.NewTLSServer(s.console)
	defer tls.Close()
	res, err := tls.Client().PostForm(tls.URL+"/sign-in", form("name", "nobody", "password", "x"))
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	jar, _ := cookiejar.New(nil)
	tls.Client().Jar = jar
	tls.Client().CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	if res, err = tls.Client().PostForm(tls.URL+"/sign-in", form("name", "admin", "password", password)); err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if c := res.Cookies()[0]; c.Name != "__Host-weft" || !c.Secure {
		t.Errorf("cookie over TLS %v", c)
	}

	// A cookie with the plain name is not one over TLS.
	hreq, _ := http.NewRequest("GET", tls.URL+"/devices", nil)
	hreq.AddCookie(&http.Cookie{Name: "weft", Value: b.cookie().Value})
	plain := http.Client{Transport: tls.Client().Transport}
	if res, err = plain.Do(hreq); err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != 401 {
		t.Errorf("plain cookie over TLS: %d", res.StatusCode)
	}
}

// TestUntrustedProxy: nobody else says that the connection is TLS.
func TestUntrustedProxy(t *testing.T) {
	s := newSite(t)
	b := s.browser().enter()
	req := b.request("POST", "/sign-in", form("name", "admin", "password", password))
	req.Header.Set("X-Forwarded-Proto", "https")
	if c := b.do(req).want(t, 303).Response.Cookies()[0]; c.Secure {
		t.Errorf("cookie %v", c)
	}
}

// TestSessionsEnd: sign-out, password change and "end"
// work on the server, a copied cookie is worth nothing afterwards.
func TestSessionsEnd(t *testing.T) {
	s := newSite(t)
	b := s.browser().enter()
	replay := func(token string) int {
		req := s.browser().request("GET", "/devices", nil)
		u, _ := url.Parse(s.server.URL)
		req.AddCookie(&http.Cookie{Name: "weft-" + u.Port(), Value: token})
		return s.browser().do(req).StatusCode
	}

	old := b.cookie().Value
	if got := replay(old); got != 200 {
		t.Fatalf("live cookie: %d", got)
	}
	b.post("/sign-out").want(t, 303)
	if got := replay(old); got != 401 {
		t.Errorf("after sign-out: %d", got)
	}
	if b.cookie().Value != "" {
		t.Error("sign-out keeps the cookie")
	}

	b.signIn()
	other := s.browser().signIn()
	mine, theirs := b.cookie().Value, other.cookie().Value
	b.post("/account/password", "current", "wrong", "password", "another good one").want(t, 422, "not right")
	b.post("/account/password", "current", password, "password", "short").want(t, 422, "at least 10")
	b.post("/account/password", "current", password, "password", "another good one").want(t, 303)
	if got := replay(theirs); got != 401 {
		t.Errorf("other session after a password change: %d", got)
	}
	if got := replay(mine); got != 401 {
		t.Errorf("this session's old token after a password change: %d", got)
	}
	b.get("/account").want(t, 200, "This browser")
	s.browser().post("/sign-in", "name", "admin", "password", password).want(t, 422, "do not match")

	// End one, end the others.
	other = s.browser()
	other.post("/sign-in", "name", "admin", "password", "another good one").want(t, 303)
	page := b.get("/account").want(t, 200, "Sign out everywhere else")
	_, rest, _ := strings.Cut(page.body, `action="/account/sessions/`)
	at, _, _ := strings.Cut(rest, `"`)
	if strings.Contains(page.body, other.cookie().Value) {
		t.Error("the page shows a token")
	}
	b.post("/account/sessions/"+at).want(t, 303)
	if got := replay(other.cookie().Value); got != 401 {
		t.Errorf("ended session: %d", got)
	}
	other.post("/sign-in", "name", "admin", "password", "another good one").want(t, 303)
	b.post("/account/sessions/end-others").want(t, 303)
	if got := replay(other.cookie().Value); got != 401 {
		t.Errorf("after end-others: %d", got)
	}
	b.get("/devices").want(t, 200)

	// A new link ends everything.
	live := b.cookie().Value
	s.browser().enter()
	if got := replay(live); got != 401 {
		t.Errorf("after a one-time link: %d", got)
	}
}

func TestIdle(t *testing.T) {
	s := newSite(t)
	b := s.browser().enter()
	// Requests of the page itself do not keep the session alive.
	for range 8 {
		s.advance(24*time.Hour - time.Second)
		req := b.request("GET", "/devices", nil)
		req.Header.Set("Weft-Passive", "1")
		if a := b.do(req); a.StatusCode == 401 {
			return
		}
	}
	t.Error("a page left open kept its session for 8 days")
}

// What a page asks for by itself wakes no device, and neither does the list of names
// that the DNS page offers.
func TestPassive(t *testing.T) {
	s := newSite(t)
	b := s.browser().enter()
	d := s.net.Add("kitchen-pi", "linux/arm64", "device")
	at := "/devices/" + d.ID.String()
	for _, c := range []struct {
		path    string
		passive bool // the request says so
		want    int  // how often devices are asked
	}{
		{"/devices", false, 1}, {"/devices", true, 0}, {at, false, 1}, {at, true, 0}, {"/network/dns", false, 0},
		{"/network/dns/try?name=kitchen-pi&from=" + d.ID.String(), false, 0},
	} {
		before := s.net.Looks()
		req := b.request("GET", c.path, nil)
		if c.passive {
			req.Header.Set("Weft-Passive", "1")
		}
		b.do(req).want(t, 200)
		if n := s.net.Looks() - before; n != c.want {
			t.Errorf("%+v: devices were asked %d times", c, n)
		}
	}
}

func TestLinkWorksOnce(t *testing.T) {
	s := newSite(t)
	link := s.net.Link("")
	u, _ := url.Parse(link)
	token := u.Query().Get("link")
	for range 3 { // opening it uses nothing up
		s.browser().get(link).want(t, 200)
	}
	s.browser().post("/welcome", "link", token, "password", "short").want(t, 422, "at least 10")
	s.browser().post("/welcome", "link", token, "password", "admin").want(t, 422)
	s.browser().post("/welcome", "link", token, "password", strings.Repeat("a", 12)).want(t, 422, "easy to guess")
	s.browser().post("/welcome", "link", token, "password", strings.Repeat("ab", 129)).want(t, 422, "longer")

	var wg sync.WaitGroup
	var mu sync.Mutex
	codes := map[int]int{}
	for range 8 {
		wg.Go(func() {
			a := s.browser().post("/welcome", "link", token, "password", password)
			mu.Lock()
			defer mu.Unlock()
			codes[a.StatusCode]++
		})
	}
	wg.Wait()
	if codes[303] != 1 || codes[410] != 7 {
		t.Errorf("8 parallel uses of one link: %v", codes)
	}
	s.browser().get(link).want(t, 410, "no longer works")
	s.browser().get("/welcome").want(t, 410)
	s.browser().get("/welcome?link="+strings.Repeat("x", 5000)).want(t, 410)
}

// TestSignInLimit: passwords cannot be guessed, and nobody is locked out by others who try.
func TestSignInLimit(t *testing.T) {
	s := newSite(t)
	owner := s.browser().enter()
	tried := 0
	for i := range 40 {
		b := s.browser()
		req := b.request("POST", "/sign-in", form("name", []string{"admin", "ADMIN", " admin "}[i%3], "password", "wrong password"))
		req.Header.Set("X-Forwarded-For", fmt.Sprintf("198.51.100.%d", i))
		a := b.do(req)
		switch a.StatusCode {
		case 422:
			tried++
		case 429:
			if a.Header.Get("Retry-After") == "" {
				t.Fatal("429 without Retry-After")
			}
		default:
			t.Fatalf("status %d", a.StatusCode)
		}
		s.advance(1400 * time.Millisecond) // 40 within 56 s
	}
	if tried > 10 || tried < 5 {
		t.Errorf("%d attempts in a minute were checked", tried)
	}
	// Who is signed in stays so, and a link still works.
	owner.get("/devices").want(t, 200)
	s.browser().post("/sign-in", "name", "admin", "password", password).want(t, 429, "Too many attempts")
	s.browser().enter()
	// After a while the password works again.
	s.advance(time.Minute)
	s.browser().signIn()
}

// TestAddressLimit: many names from one address; a proxy that is trusted names
// its clients, and only the part it wrote counts.
func TestAddressLimit(t *testing.T) {
	s := newSite(t, func(c *console.Config) { c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")} })
	try := func(i int, forwarded string) int {
		b := s.browser()
		req := b.request("POST", "/sign-in", form("name", fmt.Sprint("user", i), "password", "wrong password"))
		req.Header.Set("X-Forwarded-For", forwarded)
		return b.do(req).StatusCode
	}
	codes := map[int]int{}
	for i := range 35 {
		codes[try(i, fmt.Sprintf("10.9.8.%d, 203.0.113.9", i))]++
	}
	if codes[422] != 30 || codes[429] != 5 {
		t.Errorf("35 names from one address: %v", codes)
	}
	if got := try(100, "203.0.113.10"); got != 422 {
		t.Errorf("another address: %d", got)
	}
	for i := range 31 {
		codes[try(200+i, fmt.Sprintf("2001:db8:1:2::%x", i))]++
	}
	if codes[429] != 6 {
		t.Errorf("one IPv6 /64 counts as many: %v", codes)
	}
}

// cpuTime is how long this process has computed: unlike the clock it does not
// run while others do.
func cpuTime(t *testing.T) time.Duration {
	t.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// TestUnknownName: what is said, and how long it takes, do not depend on
// whether the name exists.
func TestUnknownName(t *testing.T) {
	s := newSite(t, func(c *console.Config) { c.Passwords = passhash.Cost{} })
	s.browser().enter()
	times := map[string][]time.Duration{}
	bodies := map[string]string{}
	for range 7 {
		s.advance(time.Minute)
		for _, name := range []string{"admin", "nobody"} {
			start := cpuTime(t)
			a := s.browser().post("/sign-in", "name", name, "password", "wrong password").want(t, 422)
			times[name] = append(times[name], cpuTime(t)-start)
			bodies[name] = strings.ReplaceAll(a.body, name, "NAME")
		}
	}
	if bodies["admin"] != bodies["nobody"] {
		t.Error("the answers differ")
	}
	for _, l := range times {
		slices.Sort(l)
	}
	// Both do one argon2id of the same cost; without it, 20 times less.
	a, b := times["admin"][0], times["nobody"][0]
	if a > 3*b || b > 3*a {
		t.Errorf("known %v, unknown %v", times["admin"], times["nobody"])
	}
}

// TestSecretsStayOut: no secret in the log or in an address.
func TestSecretsStayOut(t *testing.T) {
	var broken atomic.Bool
	s := newSiteWith(t, consoletest.Options{BeforeCommit: func() error {
		if broken.Load() {
			return errors.New("disk on fire at sector 7")
		}
		return nil
	}})
	b := s.browser()
	link := s.net.Link("")
	u, _ := url.Parse(link)
	secret := u.Query().Get("link")
	b.get(link)
	b.post("/welcome", "link", secret, "password", password).want(t, 303)
	a := b.post("/network/keys", "kind", "device", "tags", "device", "life", "1h").want(t, 303)
	at := a.Header.Get("Location")
	token := b.get(at).want(t, 200).token(t)
	b.post("/account/password", "current", "canary-wrong", "password", "canary-new-password").want(t, 422)
	s.browser().post("/sign-in", "name", "admin", "password", "canary-guess").want(t, 422)
	broken.Store(true)
	failed := b.post("/network/keys", "kind", "device", "tags", "device", "life", "1h").want(t, 500, "Something went wrong")
	if strings.Contains(failed.body, "sector 7") {
		t.Error("the page tells the server's error")
	}
	log := s.log.String()
	if !strings.Contains(log, "sector 7") {
		t.Error("the log does not tell the error")
	}
	for _, canary := range []string{secret, password, b.cookie().Value, token, "canary"} {
		if canary == "" || strings.Contains(log, canary) {
			t.Errorf("%q in the log", canary)
		}
		if strings.Contains(at, canary) {
			t.Errorf("%q in an address", canary)
		}
	}
}

// TestTokenIsShownToItsMaker only, and not for ever.
func TestTokenIsShownToItsMaker(t *testing.T) {
	s := newSite(t)
	b := s.browser().enter()
	other := s.browser().signIn()
	at := b.post("/network/keys", "kind", "device", "tags", "device", "reusable", "1", "life", "7d").want(t, 303).Header.Get("Location")
	token := b.get(at).want(t, 200, "weft run --token-file").token(t)
	if a := other.get(at).want(t, 200, "not shown any more"); strings.Contains(a.body, token) {
		t.Error("another session sees the token")
	}
	s.advance(31 * time.Minute)
	if a := b.get(at).want(t, 200, "not shown any more"); strings.Contains(a.body, token) {
		t.Error("the token is shown for ever")
	}
	// Revoked: gone at once.
	at = b.post("/network/keys", "kind", "device", "tags", "device", "life", "1h").want(t, 303).Header.Get("Location")
	id := strings.Split(at, "/")[3]
	token = b.get(at).token(t)
	b.get("/network/keys").want(t, 200, "/network/keys/"+id+"/revoke")
	b.post("/network/keys/"+id+"/revoke").want(t, 303)
	if a := b.get(at).want(t, 200, "revoked"); strings.Contains(a.body, token) {
		t.Error("a revoked token is shown")
	}
	for _, bad := range [][]string{
		{"kind", "device", "tags", "", "life", "1h"},
		{"kind", "device", "tags", "a\"b", "life", "1h"},
		{"kind", "device", "tags", "a b c d e f g h i", "life", "1h"},
		{"kind", "device", "tags", "device", "life", "10y"},
	} {
		before := s.net.State()
		b.post("/network/keys", bad...).want(t, 422)
		if s.net.State() != before {
			t.Errorf("%v made a key", bad)
		}
	}
}

func TestBodiesAreBounded(t *testing.T) {
	s := newSite(t)
	b := s.browser().enter()
	big := strings.Repeat("x", 20<<10)
	b.post("/network/keys", "note", big).want(t, 413)
	req := b.request("POST", "/network/keys", nil)
	req.Body, req.ContentLength = io.NopCloser(strings.NewReader("note="+big)), -1 // chunked
	b.do(req).want(t, 413)
	b.post("/sign-in", "name", strings.Repeat("n", 9000), "password", "x").want(t, 422)
}

func TestNextStaysHere(t *testing.T) {
	s := newSite(t)
	s.browser().enter()
	for next, want := range map[string]string{
		"/keys": "/keys", "/devices?q=a": "/devices?q=a", "": "/devices", "/": "/devices",
		"https://evil.example/": "/devices", "//evil.example": "/devices", "/\\evil.example": "/devices", "javascript:alert(1)": "/devices",
		"/\t/evil.example": "/devices", "http:evil": "/devices",
	} {
		if got := s.browser().post("/sign-in", "name", "admin", "password", password, "next", next).want(t, 303).Header.Get("Location"); got != want {
			t.Errorf("next %q leads to %q", next, got)
		}
	}
	// A code in the second step, and a sign-in that is done again, do not lead elsewhere
	// either.
	owner := s.browser().signIn()
	phone, _ := owner.setUpCodes()
	for _, next := range []string{"https://evil.example/", "//evil.example", "/\\evil.example"} {
		s.advance(time.Minute)
		a := owner.get("/sign-in/again?next="+url.QueryEscape(next)).want(t, 200)
		if strings.Contains(a.body, "evil.example") {
			t.Errorf("next %q is in the form", next)
		}
		b := s.browser()
		proved := b.post("/sign-in", "name", "admin", "password", password, "next", next).want(t, 200).hidden(t, "proved")
		if got := b.post("/sign-in/code", "proved", proved, "code", phone.code(), "next", next).want(t, 303).Header.Get("Location"); got != "/devices" {
			t.Errorf("next %q leads to %q after a code", next, got)
		}
	}
	s.browser().get("/devices?q=a").want(t, 401, `name="next" value="/devices?q=a"`)
	b := s.browser()
	b.get("//evil.example/..").want(t, 307)
	if to := b.get("//evil.example/").Header.Get("Location"); strings.HasPrefix(to, "//") {
		t.Errorf("redirect to %q", to)
	}
}

// TestVendored pins the files that come from elsewhere.
func TestVendored(t *testing.T) {
	for name, want := range map[string]string{
		"htmx-4.0.1.min.js":   "a0abb04f2f45a1f89d1d4844023245537e5e6014c87b144553e0607b4cc32130",
		"hx-sse-4.0.1.min.js": "18ef2761356ec1fe0bb6d92612315b37517a7c1e9856b661c5ae81fef239d103",
		"htmx-LICENSE.txt":    "d3d2456f76414f2456104660ebd65aff1c04cd7966b942bdabd63f3cdb316a38",
	} {
		b, err := os.ReadFile("static/" + name)
		if err != nil {
			t.Fatal(err)
		}
		if sum := sha256.Sum256(b); hex.EncodeToString(sum[:]) != want {
			t.Errorf("%s: SHA-256 %x, want %s", name, sum, want)
		}
	}
	s := newSite(t)
	a := s.browser().get("/sign-in")
	_, rest, _ := strings.Cut(a.body, `href="/static/style.css?v=`)
	tag, _, _ := strings.Cut(rest, `"`)
	asset := s.browser().get("/static/style.css?v="+tag).want(t, 200)
	if !strings.Contains(asset.Header.Get("Cache-Control"), "immutable") || asset.Header.Get("Content-Type") != "text/css; charset=utf-8" {
		t.Errorf("style.css: %v", asset.Header)
	}
	s.browser().get("/static/..%2fconsole.go").want(t, 404)
	s.browser().get("/static/nothing.js").want(t, 404)
}

// TestSignInsAreRecorded: who came in and who did not is in the audit, by where it came
// from, and nothing that opens anything is.
func TestSignInsAreRecorded(t *testing.T) {
	s := newSite(t, func(c *console.Config) { c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")} })
	b := s.browser()
	first := s.net.Link("")
	u, _ := url.Parse(first)
	try := func(path, from string, status int, kv ...string) {
		t.Helper()
		req := b.request("POST", path, form(kv...))
		req.Header.Set("X-Forwarded-For", from)
		b.do(req).want(t, status)
	}
	try("/welcome", "198.51.100.1", 303, "link", u.Query().Get("link"), "password", password)
	try("/welcome", "198.51.100.2", 410, "link", u.Query().Get("link"), "password", password)
	try("/sign-in", "198.51.100.3", 422, "name", "admin", "password", "canary-guess")
	try("/sign-in", "198.51.100.3", 422, "name", "admin", "password", "canary-guess")
	try("/sign-in", "198.51.100.3", 422, "name", "canary-name", "password", "canary-guess")
	for range 6 {
		req := b.request("POST", "/sign-in", form("name", "somebody", "password", "canary-guess"))
		req.Header.Set("X-Forwarded-For", "198.51.100.4")
		b.do(req)
	}
	try("/account/password", "198.51.100.1", 422, "current", "canary-guess", "password", "a good new one")
	cookie := b.cookie().Value
	try("/sign-in", "198.51.100.1", 303, "name", "admin", "password", password)
	try("/account/password", "198.51.100.1", 303, "current", password, "password", "a good new one")
	try("/sign-out", "198.51.100.1", 303)
	s.console.Close()

	var got []string
	s.net.Restart(func(db *sql.DB) { // a service that ends writes what it has counted
		rows, err := db.Query(`SELECT record FROM audit ORDER BY seq`)
		if err != nil {
			t.Fatal(err)
		}
		defer rows.Close()
		for rows.Next() {
			var raw []byte
			if err := rows.Scan(&raw); err != nil {
				t.Fatal(err)
			}
			for _, secret := range []string{"canary", "argon2", password, cookie, u.Query().Get("link")} {
				if bytes.Contains(raw, []byte(secret)) {
					t.Errorf("%q is in the audit", secret)
				}
			}
			r, err := audit.Decode(raw)
			if err != nil {
				t.Fatal(err)
			}
			if r.Via == string(ops.ViaConsole) {
				got = append(got, fmt.Sprintf("%s %s by %q from %s %q %d", r.Op, r.Name, r.User, r.From, r.Refused, r.Count))
			}
		}
	})
	want := []string{
		`session.create admin by "admin" from 198.51.100.1 "" 1`, // with the link
		`session.end admin by "admin" from 198.51.100.1 "" 1`,    // that the browser had
		`session.create admin by "admin" from 198.51.100.1 "" 1`, // with the password
		`session.end admin by "admin" from 198.51.100.1 "" 1`,    // by the change of the password
		`user.password admin by "admin" from 198.51.100.1 "" 1`,
		`session.create admin by "admin" from 198.51.100.1 "" 1`,
		`session.end admin by "admin" from 198.51.100.1 "" 1`,
		`session.create  by "" from 198.51.100.2 "no such link" 1`,
		`session.create  by "" from 198.51.100.3 "wrong name or password" 1`,
		`session.create  by "" from 198.51.100.4 "too many attempts" 3`,
		`session.create  by "" from 198.51.100.4 "wrong name or password" 3`,
		`session.create admin by "" from 198.51.100.3 "wrong name or password" 2`,
		`user.password  by "admin" from 198.51.100.1 "wrong password" 1`,
	}
	slices.Sort(got[min(7, len(got)):]) // what was refused, in one minute
	if !slices.Equal(got, want) {
		t.Errorf("recorded\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
