package passkey_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"weft/coord/passkey"
	"weft/coord/passkey/passkeytest"
)

const domain, origin = "weft.example", "https://console.weft.example:8443"

var challenge = []byte("a challenge of forty bytes, which is long")

// enrolled is an authenticator whose key is stored.
func enrolled(t *testing.T) (*passkeytest.Authenticator, passkey.Site, passkey.Key) {
	t.Helper()
	site := passkey.Site{Domain: domain, Origin: origin}
	a := passkeytest.New(t, domain, origin)
	options, err := site.CreateOptions(challenge, "user1", "alice", [][]byte{{1, 2, 3}})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"userVerification":"required"`, `"residentKey":"required"`, `"id":"weft.example"`, `"AQID"`} {
		if !strings.Contains(string(options), want) {
			t.Errorf("no %s in %s", want, options)
		}
	}
	k, err := site.Created(challenge, "user1", a.Create(options))
	if err != nil {
		t.Fatal(err)
	}
	return a, site, k
}

// A passkey proves its user to the site that it was made for, and whatever differs from
// that proves nothing.
func TestProof(t *testing.T) {
	other := passkeytest.New(t, domain, origin)
	for name, c := range map[string]struct {
		change func(*passkeytest.Authenticator)
		at     func(passkey.Site) passkey.Site
		signs  []byte
		spoil  func([]byte) []byte
		ok     bool
	}{
		"as it is":               {ok: true},
		"another origin":         {change: func(a *passkeytest.Authenticator) { a.Origin = "https://evil.example" }},
		"another port":           {change: func(a *passkeytest.Authenticator) { a.Origin = "https://console.weft.example" }},
		"without TLS":            {change: func(a *passkeytest.Authenticator) { a.Origin = "http://console.weft.example:8443" }},
		"another domain":         {change: func(a *passkeytest.Authenticator) { a.Domain = "evil.example" }},
		"the parent domain":      {change: func(a *passkeytest.Authenticator) { a.Domain = "example" }},
		"nobody verified":        {change: func(a *passkeytest.Authenticator) { a.Flags = passkeytest.UserPresent }},
		"nobody present":         {change: func(a *passkeytest.Authenticator) { a.Flags = passkeytest.UserVerified }},
		"another user":           {change: func(a *passkeytest.Authenticator) { a.Claim("user2") }},
		"no user":                {change: func(a *passkeytest.Authenticator) { a.Claim("") }},
		"another challenge":      {signs: []byte("another challenge of forty bytes, as long")},
		"another key":            {spoil: func([]byte) []byte { return nil }},
		"the site has moved":     {at: func(s passkey.Site) passkey.Site { s.Origin = "https://other.weft.example"; return s }},
		"not JSON":               {spoil: func([]byte) []byte { return []byte("nonsense") }},
		"empty":                  {spoil: func([]byte) []byte { return []byte("{}") }},
		"a signature of nothing": {spoil: func(b []byte) []byte { return bytes.Replace(b, []byte(`"signature":"`), []byte(`"signature":"AA`), 1) }},
	} {
		t.Run(name, func(t *testing.T) {
			a, site, k := enrolled(t)
			signs := challenge
			if c.signs != nil {
				signs = c.signs
			}
			options, err := site.GetOptions(signs)
			if err != nil {
				t.Fatal(err)
			}
			if c.change != nil {
				c.change(a)
			}
			response := a.Get(options)
			if name == "another key" {
				response = other.Get(options)
			} else if c.spoil != nil {
				response = c.spoil(response)
			}
			if c.at != nil {
				site = c.at(site)
			}
			p, err := site.Proved(challenge, response, func(id []byte, user string) (passkey.Key, error) {
				if !bytes.Equal(id, k.ID) || user != "user1" {
					return passkey.Key{}, passkey.ErrUnknown
				}
				return k, nil
			})
			if (err == nil) != c.ok {
				t.Fatal(err)
			}
			if strings.HasSuffix(name, " user") && name == "another user" && !errors.Is(err, passkey.ErrUnknown) {
				t.Error(err)
			}
			if got, err := passkey.ChallengeOf(response); c.ok && (err != nil || !bytes.Equal(got, challenge) || !bytes.Equal(p.ID, k.ID)) {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
}

// What was not made for this site, this user and this challenge is no passkey.
func TestCreated(t *testing.T) {
	site := passkey.Site{Domain: domain, Origin: origin}
	for name, change := range map[string]func(*passkeytest.Authenticator){
		"another origin":  func(a *passkeytest.Authenticator) { a.Origin = "https://evil.example" },
		"another domain":  func(a *passkeytest.Authenticator) { a.Domain = "evil.example" },
		"nobody verified": func(a *passkeytest.Authenticator) { a.Flags = passkeytest.UserPresent },
	} {
		a := passkeytest.New(t, domain, origin)
		change(a)
		options, err := site.CreateOptions(challenge, "user1", "alice", nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := site.Created(challenge, "user1", a.Create(options)); err == nil {
			t.Errorf("%s: taken", name)
		}
		a = passkeytest.New(t, domain, origin)
		if _, err := site.Created([]byte("another challenge of forty bytes, as long"), "user1", a.Create(options)); err == nil {
			t.Errorf("%s: another challenge was taken", name)
		}
	}
}

func FuzzResponses(f *testing.F) {
	site := passkey.Site{Domain: domain, Origin: origin}
	a := passkeytest.New(f, domain, origin)
	create, err1 := site.CreateOptions(challenge, "user1", "alice", nil)
	get, err2 := site.GetOptions(challenge)
	if err := errors.Join(err1, err2); err != nil {
		f.Fatal(err)
	}
	made := a.Create(create)
	k, err := site.Created(challenge, "user1", made)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(made)
	f.Add(a.Get(get))
	f.Fuzz(func(t *testing.T, b []byte) {
		passkey.ChallengeOf(b)
		site.Created(challenge, "user1", b)
		if p, err := site.Proved(challenge, b, func([]byte, string) (passkey.Key, error) { return k, nil }); err == nil && !bytes.Equal(p.ID, k.ID) {
			t.Errorf("%q proves another key", b)
		}
	})
}
