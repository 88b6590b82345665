package console_test

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"weft/coord/ops"
	"weft/coord/store"
)

// idp is an OpenID provider that does what it is told, also what none should.
type idp struct {
	t   *testing.T
	s   *site
	url string

	mu      sync.Mutex // guards the following
	key     *rsa.PrivateKey
	kid     string
	claims  map[string]any // of whoever signs in, over those that are right
	spoil   func(header, claims map[string]any) (raw string)
	codes   map[string]url.Values // by code: the request that it was given for
	refresh map[string]bool       // refresh tokens that are good
	info    map[string]any        // further claims, at the endpoint for them
	down    bool
	asked   url.Values
}

func (s *site) idp() *idp {
	p := &idp{t: s.t, s: s, codes: map[string]url.Values{}, refresh: map[string]bool{}, claims: map[string]any{"sub": "subject-1", "preferred_username": "alice"}}
	p.rotate()
	mux := http.NewServeMux()
	answer := func(w http.ResponseWriter, v any) {
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(v)
	}
	mux.HandleFunc("GET /.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, map[string]any{"issuer": p.url, "authorization_endpoint": p.url + "/authorize", "token_endpoint": p.url + "/token", "jwks_uri": p.url + "/keys", "userinfo_endpoint": p.url + "/info", "id_token_signing_alg_values_supported": []string{"RS256"}})
	})
	mux.HandleFunc("GET /keys", func(w http.ResponseWriter, _ *http.Request) {
		p.mu.Lock()
		defer p.mu.Unlock()
		b64 := base64.RawURLEncoding.EncodeToString
		answer(w, map[string]any{"keys": []any{map[string]any{"kty": "RSA", "use": "sig", "alg": "RS256", "kid": p.kid, "n": b64(p.key.N.Bytes()), "e": b64(big.NewInt(int64(p.key.E)).Bytes())}}})
	})
	mux.HandleFunc("POST /token", func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		defer p.mu.Unlock()
		r.ParseForm()
		id, secret, _ := r.BasicAuth()
		asked, ok := p.codes[r.Form.Get("code")]
		delete(p.codes, r.Form.Get("code")) // each once
		sum := sha256.Sum256([]byte(r.Form.Get("code_verifier")))
		good := ok && asked.Get("code_challenge") == base64.RawURLEncoding.EncodeToString(sum[:]) && asked.Get("redirect_uri") == r.Form.Get("redirect_uri")
		if r.Form.Get("grant_type") == "refresh_token" {
			good = p.refresh[r.Form.Get("refresh_token")]
			delete(p.refresh, r.Form.Get("refresh_token"))
			asked = url.Values{"nonce": {""}}
		}
		if !good || id != "weft" || secret != "canary-client-secret" {
			w.WriteHeader(400)
			answer(w, map[string]any{"error": "invalid_grant", "error_description": "canary-description"})
			return
		}
		next := "canary-refresh-" + ops.NewToken()
		p.refresh[next] = true
		answer(w, map[string]any{"access_token": "canary-access", "token_type": "Bearer", "expires_in": 3600, "refresh_token": next, "id_token": p.tokenLocked(asked.Get("nonce"))})
	})
	mux.HandleFunc("GET /info", func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		defer p.mu.Unlock()
		if r.Header.Get("Authorization") != "Bearer canary-access" || p.info == nil && p.claims["sub"] == nil {
			w.WriteHeader(401)
			fmt.Fprint(w, "canary-info")
			return
		}
		info := map[string]any{"sub": p.claims["sub"]}
		maps.Copy(info, p.info)
		answer(w, info)
	})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		down := p.down
		p.mu.Unlock()
		if down {
			w.WriteHeader(503)
			return
		}
		mux.ServeHTTP(w, r)
	}))
	s.t.Cleanup(server.Close)
	p.url = server.URL
	return p
}

func (p *idp) set(f func(*idp)) *idp {
	p.mu.Lock()
	defer p.mu.Unlock()
	f(p)
	return p
}

// rotate gives it another key.
func (p *idp) rotate() {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		p.t.Fatal(err)
	}
	p.set(func(p *idp) { p.key, p.kid = key, ops.NewToken() })
}

func (p *idp) tokenLocked(nonce string) string {
	header := map[string]any{"alg": "RS256", "kid": p.kid, "typ": "JWT"}
	now := p.s.Now()
	claims := map[string]any{"iss": p.url, "aud": "weft", "iat": now.Unix(), "exp": now.Add(5 * time.Minute).Unix(), "auth_time": now.Unix()}
	if nonce != "" {
		claims["nonce"] = nonce
	}
	maps.Copy(claims, p.claims)
	if p.spoil != nil {
		if raw := p.spoil(header, claims); raw != "" {
			return raw
		}
	}
	return p.signLocked(header, claims)
}

func (p *idp) signLocked(header, claims map[string]any) string {
	part := func(v any) string {
		b, err := json.Marshal(v)
		if err != nil {
			p.t.Error(err)
		}
		return base64.RawURLEncoding.EncodeToString(b)
	}
	text := part(header) + "." + part(claims)
	sum := sha256.Sum256([]byte(text))
	sig, err := rsa.SignPKCS1v15(rand.Reader, p.key, crypto.SHA256, sum[:])
	if err != nil {
		p.t.Error(err)
	}
	return text + "." + base64.RawURLEncoding.EncodeToString(sig)
}

// add has the network use the provider.
func (p *idp) add(id string, change ...func(*ops.SetProvider)) *idp {
	p.t.Helper()
	client, secret := "weft", "canary-client-secret"
	c := ops.SetProvider{ID: id, New: true, Issuer: &p.url, ClientID: &client, Secret: &secret}
	for _, f := range change {
		f(&c)
	}
	if _, err := ops.Do(p.t.Context(), p.s.net.Service, ops.Root(), c); err != nil {
		p.t.Fatal(err)
	}
	return p
}

// ask has a browser go to a provider, which lets it in: the answer's address.
func (b *browser) ask(p *idp, id, query string) string {
	b.t.Helper()
	to := b.get("/sign-in/with/"+id+query).want(b.t, 303).Header.Get("Location")
	u, err := url.Parse(to)
	if err != nil || !strings.HasPrefix(to, p.url+"/authorize?") {
		b.t.Fatalf("goes to %q, %v", to, err)
	}
	q := u.Query()
	for _, want := range []string{"state", "nonce", "code_challenge"} {
		if len(q.Get(want)) < 43 {
			b.t.Errorf("%s is %q", want, q.Get(want))
		}
	}
	if q.Get("code_challenge_method") != "S256" || q.Get("response_type") != "code" || !strings.Contains(q.Get("scope"), "openid") {
		b.t.Errorf("asked %v", q)
	}
	code := ops.NewToken()
	p.set(func(p *idp) { p.codes[code], p.asked = q, q })
	back, err := url.Parse(q.Get("redirect_uri"))
	if err != nil {
		b.t.Fatal(err)
	}
	return back.Path + "?" + url.Values{"code": {code}, "state": {q.Get("state")}}.Encode()
}

func (b *browser) with(p *idp, id, query string) answer {
	b.t.Helper()
	return b.get(b.ask(p, id, query))
}

func admitGroup(c *ops.SetProvider) {
	claim, value := "groups", "weft-users"
	c.AdmitClaim, c.AdmitValue, c.GroupsClaim = &claim, &value, &claim
}

// Whom nobody knows waits; who was approved signs in from then on, by issuer and subject:
// a name and an address of mail give nobody an account.
func TestProvider(t *testing.T) {
	s := newSite(t)
	s.browser().enter()
	p := s.idp().add("work")
	b := s.browser()
	b.get("/sign-in").want(t, 200, "/sign-in/with/work", "Sign in with work")
	p.set(func(p *idp) {
		p.claims = map[string]any{"sub": "subject-1", "preferred_username": "admin", "email": "admin@example.org", "email_verified": true}
	})
	b.with(p, "work", "").want(t, 403, "You are not approved yet", "subject-1")
	if b.cookie().Value != "" {
		t.Error("who waits has a session")
	}
	waiting, err := s.net.Identities(t.Context(), ops.Root())
	if err != nil || len(waiting) != 1 || waiting[0].User != "" || waiting[0].Subject != "subject-1" || waiting[0].Mail != "admin@example.org" {
		t.Fatalf("%+v, %v", waiting, err)
	}
	i, err := ops.Do(t.Context(), s.net.Service, ops.Root(), ops.ApproveIdentity{ID: waiting[0].ID})
	if err != nil || i.User != "admin-2" {
		t.Fatalf("%+v, %v", i, err)
	}
	if to := b.with(p, "work", "?next=/keys").want(t, 303).Header.Get("Location"); to != "/keys" {
		t.Errorf("leads to %q", to)
	}
	b.get("/account").want(t, 200, "admin-2", "with another provider")
	for _, next := range []string{"//evil.example", "https://evil.example/", "/\\evil.example"} {
		if to := s.browser().with(p, "work", "?next="+url.QueryEscape(next)).want(t, 303).Header.Get("Location"); to != "/devices" {
			t.Errorf("next %q leads to %q", next, to)
		}
	}
	// Another subject with the same name and mail is another person.
	p.set(func(p *idp) { p.claims["sub"] = "subject-2" })
	s.browser().with(p, "work", "").want(t, 403, "You are not approved yet")
	// And so is the same subject of another issuer.
	other := s.idp().add("home")
	other.set(func(o *idp) { o.claims = map[string]any{"sub": "subject-1", "preferred_username": "admin-2"} })
	s.browser().with(other, "home", "").want(t, 403, "You are not approved yet")
	s.browser().get("/sign-in").want(t, 200, "/sign-in/with/work", "/sign-in/with/home")
	// Nothing secret is anywhere.
	list, err := s.net.Audit(t.Context(), ops.Root(), store.AuditFilter{Limit: 200})
	if err != nil {
		t.Fatal(err)
	}
	everything := s.log.String() + strings.Join(texts(list), "\n")
	for _, secret := range []string{"canary", p.asked.Get("state"), p.asked.Get("nonce"), p.asked.Get("code_challenge"), b.cookie().Value} {
		if strings.Contains(everything, secret) {
			t.Errorf("%q is in the audit or the log", secret)
		}
	}
}

// What a provider may not get away with.
func TestProviderAttacks(t *testing.T) {
	s := newSite(t)
	p := s.idp().add("work", admitGroup)
	other := s.idp().add("other", admitGroup)
	good := map[string]any{"sub": "subject-1", "preferred_username": "alice", "groups": []string{"weft-users"}}
	reset := func() {
		for _, p := range []*idp{p, other} {
			p.set(func(p *idp) { p.claims, p.spoil, p.down = good, nil, false })
		}
	}
	reset()
	s.browser().with(p, "work", "").want(t, 303)
	old := p.key
	for name, spoil := range map[string]func(header, claims map[string]any) string{
		"wrong nonce":    func(_, c map[string]any) string { c["nonce"] = "another"; return "" },
		"no nonce":       func(_, c map[string]any) string { delete(c, "nonce"); return "" },
		"wrong issuer":   func(_, c map[string]any) string { c["iss"] = "https://evil.example"; return "" },
		"other provider": func(_, c map[string]any) string { c["iss"] = other.url; return "" },
		"wrong audience": func(_, c map[string]any) string { c["aud"] = "somebody"; return "" },
		"for another":    func(_, c map[string]any) string { c["azp"] = "somebody"; return "" },
		"over":           func(_, c map[string]any) string { c["exp"] = s.Now().Add(-time.Minute).Unix(); return "" },
		"not yet":        func(_, c map[string]any) string { c["nbf"] = s.Now().Add(time.Hour).Unix(); return "" },
		"no subject":     func(_, c map[string]any) string { delete(c, "sub"); return "" },
		"long subject":   func(_, c map[string]any) string { c["sub"] = strings.Repeat("x", 300); return "" },
		"alg none": func(h, c map[string]any) string {
			h["alg"] = "none"
			signed := p.signLocked(h, c)
			return signed[:strings.LastIndex(signed, ".")+1]
		},
		"alg HS256":     func(h, c map[string]any) string { h["alg"] = "HS256"; return p.signLocked(h, c) },
		"not signed":    func(h, c map[string]any) string { return strings.TrimRight(p.signLocked(h, c), "A") + "AAAA" },
		"nothing":       func(h, c map[string]any) string { return "x" },
		"an older key":  nil, // below
		"another's key": func(h, c map[string]any) string { return (&idp{t: t, key: other.key}).signLocked(h, c) },
	} {
		if name == "an older key" {
			continue
		}
		p.set(func(p *idp) { p.spoil = spoil })
		b := s.browser()
		a := b.with(p, "work", "")
		if a.StatusCode != 422 || b.cookie().Value != "" || !strings.Contains(a.body, "did not prove who you are") {
			t.Errorf("%s: %d", name, a.StatusCode)
		}
		reset()
	}
	// Claims that are not in the token count if they are of the same person, and none of
	// them changes what the token says.
	for name, c := range map[string]struct {
		token, info map[string]any
		status      int
	}{
		"only there":                {map[string]any{"sub": "subject-9"}, map[string]any{"groups": []string{"weft-users"}}, 303},
		"of another person":         {map[string]any{"sub": "subject-9"}, map[string]any{"sub": "subject-1", "groups": []string{"weft-users"}}, 422},
		"of nobody":                 {map[string]any{"sub": "subject-9"}, map[string]any{"sub": nil}, 422},
		"the token says less":       {map[string]any{"sub": "subject-8", "groups": []string{}}, map[string]any{"groups": []string{"weft-users"}}, 403},
		"a session of another time": {map[string]any{"sub": "subject-9", "groups": "weft-users"}, map[string]any{"auth_time": 1, "nonce": "x", "iss": "x", "aud": "x", "azp": "x"}, 303},
		"too much to be an answer":  {map[string]any{"sub": "subject-9", "groups": "weft-users"}, map[string]any{"x": strings.Repeat("x", 2<<20)}, 422},
	} {
		p.set(func(p *idp) { p.claims, p.info = c.token, c.info })
		if got := s.browser().with(p, "work", "").StatusCode; got != c.status {
			t.Errorf("claims %s: %d", name, got)
		}
	}
	p.set(func(p *idp) { p.info = nil })
	reset()
	if strings.Contains(s.log.String(), "canary") {
		t.Error("what a provider answered is in the log")
	}
	// Keys that are new are fetched, those that are gone are not good any more.
	p.rotate()
	s.browser().with(p, "work", "").want(t, 303)
	p.set(func(p *idp) {
		kid := p.kid
		p.spoil = func(h, c map[string]any) string {
			h["kid"] = kid
			return (&idp{t: t, key: old}).signLocked(h, c)
		}
	})
	s.browser().with(p, "work", "").want(t, 422)
	reset()

	// An answer works once, in the browser that asked, and for the provider that was asked.
	b := s.browser()
	at := b.ask(p, "work", "")
	s.browser().get(at).want(t, 422, "no answer to a question")
	b.get(at).want(t, 303)
	b.get(at).want(t, 422)
	b = s.browser()
	at = b.ask(p, "work", "")
	b.get(strings.Replace(at, "state=", "state=x", 1)).want(t, 422)
	b.get(at).want(t, 422) // the question is gone
	b = s.browser()
	at = b.ask(p, "work", "")
	b.get(strings.Replace(at, "/work/", "/other/", 1)).want(t, 422, "no answer to a question")
	b = s.browser()
	b.get(b.ask(p, "work", "")+"&iss="+url.QueryEscape(other.url)).want(t, 422, "did not prove")
	b = s.browser()
	b.get(b.ask(p, "work", "")+"&iss="+url.QueryEscape(p.url)).want(t, 303)
	b = s.browser()
	b.get(b.ask(p, "work", "")+"&error=access_denied&error_description=%3Cscript%3E").want(t, 422, "did not sign you in")
	b = s.browser()
	at = b.ask(p, "work", "")
	s.advance(11 * time.Minute)
	b.get(at).want(t, 422)
	// The session that a browser had ends: none can be fixed.
	b = s.browser()
	b.with(p, "work", "").want(t, 303)
	first := b.cookie().Value
	b.with(p, "work", "").want(t, 303)
	if b.cookie().Value == first {
		t.Error("signing in keeps the session token")
	}
	// While it is down the others work, and it says so.
	p.set(func(p *idp) { p.down = true })
	s.advance(2 * time.Hour)
	s.browser().get("/sign-in/with/work").want(t, 502, "cannot be asked")
	s.browser().with(other, "other", "").want(t, 303)
	s.browser().get("/sign-in/with/nobody").want(t, 404)
}

// A session lasts 12 hours, or as long as its provider extends it; groups are what it
// says, and whom a rule approved stays so while it holds.
func TestProviderSessionsEnd(t *testing.T) {
	s := newSite(t)
	p := s.idp().add("work", admitGroup)
	say := func(groups ...string) {
		p.set(func(p *idp) {
			p.claims = map[string]any{"sub": "subject-1", "preferred_username": "alice", "groups": groups}
		})
	}
	say("weft-users", "cameras", strings.Repeat("x", 500), "bad\x00name")
	b := s.browser()
	b.with(p, "work", "").want(t, 303)
	u, err := s.net.Login(t.Context(), "alice")
	if err != nil {
		t.Fatal(err)
	}
	s.advance(12*time.Hour - time.Minute)
	b.get("/devices").want(t, 200)
	s.advance(2 * time.Minute)
	b.get("/devices").want(t, 200) // extended
	s.advance(13 * time.Hour)
	b.get("/devices").want(t, 200) // with the refresh token that took the place of the first
	// The provider knows the person no more.
	p.set(func(p *idp) { clear(p.refresh) })
	s.advance(11 * time.Hour)
	b.get("/devices").want(t, 200)
	s.advance(2 * time.Hour)
	b.get("/devices").want(t, 401)
	b.get("/devices").want(t, 401)
	// It does, and says that the group is gone.
	b.with(p, "work", "").want(t, 303)
	say("cameras")
	s.advance(13 * time.Hour)
	b.get("/devices").want(t, 401)
	s.browser().with(p, "work", "").want(t, 403, "does not report any more")
	say("weft-users")
	b.with(p, "work", "").want(t, 303)
	// Removed here, it ends at once.
	if _, err := ops.Do(t.Context(), s.net.Service, ops.Root(), ops.RemoveProvider{ID: "work"}); err != nil {
		t.Fatal(err)
	}
	b.get("/devices").want(t, 401)
	if u.Name != "alice" {
		t.Error(u.Name)
	}
}

// Signing in again has to be done there, by the same person, now.
func TestProviderAgain(t *testing.T) {
	s := newSite(t)
	p := s.idp().add("work", admitGroup)
	say := func(sub string, at time.Time) {
		p.set(func(p *idp) {
			p.claims = map[string]any{"sub": sub, "groups": "weft-users", "auth_time": at.Unix()}
		})
	}
	say("one", s.Now())
	b := s.browser()
	b.with(p, "work", "").want(t, 303)
	s.advance(10 * time.Minute)
	b.get("/sign-in/again?next=/account").want(t, 200, "again=1")
	say("one", s.Now().Add(-10*time.Minute))
	b.with(p, "work", "?again=1").want(t, 422, "did not ask you to sign in again")
	if p.asked.Get("prompt") != "login" || p.asked.Get("max_age") != "0" {
		t.Errorf("asked %v", p.asked)
	}
	say("two", s.Now())
	b.with(p, "work", "?again=1").want(t, 403, "somebody else")
	say("one", s.Now())
	b.with(p, "work", "?again=1&next=/account/codes/set-up").want(t, 303)
}

// Where more is demanded, somebody who signed in elsewhere gives a code, or sets codes up.
func TestProviderDemanded(t *testing.T) {
	s := newSite(t)
	p := s.idp().add("work")
	s.browser().with(p, "work", "").want(t, 403)
	waiting, err := s.net.Identities(t.Context(), ops.Root())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ops.Do(t.Context(), s.net.Service, ops.Root(), ops.ApproveIdentity{ID: waiting[0].ID, User: "admin"}); err != nil {
		t.Fatal(err)
	}
	if _, err := ops.Do(t.Context(), s.net.Service, ops.Root(), ops.ApproveIdentity{ID: waiting[0].ID, User: "admin"}); !errors.Is(err, ops.ErrTaken) {
		t.Errorf("approved twice: %v", err)
	}
	on := true
	if _, err := ops.Do(t.Context(), s.net.Service, ops.Root(), ops.SetSignIn{Demanded: &on}); err != nil {
		t.Fatal(err)
	}
	b := s.browser()
	b.with(p, "work", "").want(t, 303)
	b.get("/devices").want(t, 303)
	phone, _ := b.setUpCodes()
	b.get("/devices").want(t, 200)
	s.advance(time.Minute)
	b = s.browser()
	b.with(p, "work", "").want(t, 303)
	b.get("/devices").want(t, 303)
	b.get("/account/codes/set-up")
	b.post("/account/codes/prove", "code", "").want(t, 422)
	b.post("/account/codes/prove", "code", "nonsense").want(t, 422, "not right")
	b.get("/devices").want(t, 303)
	b.post("/account/codes/prove", "code", phone.code()).want(t, 303)
	b.get("/devices").want(t, 200)
	b.get("/account").want(t, 200, "another provider and a code")
	// Whoever is forgotten is out, and waits again.
	if _, err := ops.Do(t.Context(), s.net.Service, ops.Root(), ops.DenyIdentity{ID: waiting[0].ID}); err != nil {
		t.Fatal(err)
	}
	b.get("/devices").want(t, 401)
	s.browser().with(p, "work", "").want(t, 403, "You are not approved yet")
}

// Strangers who sign in somewhere fill no table.
func TestWaitingIsBounded(t *testing.T) {
	s := newSite(t)
	s.idp().add("work")
	full := 0
	for i := range 150 {
		_, err := ops.Do(t.Context(), s.net.Service, ops.Actor{Via: ops.ViaConsole}, ops.SignInWithProvider{Who: ops.Foreigner{Provider: "work", Issuer: "https://x.example", Subject: fmt.Sprint(i)}})
		if err != nil {
			full++
		}
	}
	if list, err := s.net.Identities(t.Context(), ops.Root()); err != nil || len(list) != 100 || full != 50 {
		t.Errorf("%d wait, %d refused, %v", len(list), full, err)
	}
}

// A verified address of mail approves, one that anybody may type does not.
func TestAdmittedByMail(t *testing.T) {
	s := newSite(t)
	claim, value := "email", "alice@example.org"
	p := s.idp().add("work", func(c *ops.SetProvider) { c.AdmitClaim, c.AdmitValue = &claim, &value })
	for verified, status := range map[any]int{nil: 403, false: 403, "true": 403} {
		p.set(func(p *idp) {
			p.claims = map[string]any{"sub": fmt.Sprint("s", verified), "email": value, "email_verified": verified}
		})
		s.browser().with(p, "work", "").want(t, status)
	}
	// That another address is verified, elsewhere, says nothing about this one.
	p.set(func(p *idp) {
		p.claims, p.info = map[string]any{"sub": "s", "email": value}, map[string]any{"email": "mallory@example.org", "email_verified": true}
	})
	s.browser().with(p, "work", "").want(t, 403)
	p.set(func(p *idp) { p.info = nil })
	p.set(func(p *idp) { p.claims = map[string]any{"sub": "s", "email": value, "email_verified": true} })
	s.browser().with(p, "work", "").want(t, 303)
}
