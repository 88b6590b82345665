// Package oidc asks an OpenID provider who a person is, with the authorization code flow,
// PKCE, state and nonce. It caches the metadata of providers, and keeps nothing about people.
// It is the only package that imports the OpenID and OAuth modules.
package oidc

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"
)

const (
	maxAnswer = 1 << 20          // bytes of a provider's answer
	timeout   = 10 * time.Second // of one request to a provider
	discover  = time.Hour        // after which a provider's metadata are fetched again
)

// Config is a provider as the network's owner has set it up.
type Config struct {
	Issuer, ClientID, Secret string
	Scopes                   []string // in addition to "openid"
}

// Person is a person as a provider identifies them.
type Person struct {
	Issuer, Subject string
	Claims          map[string]any
	SignedIn        time.Time // when the person last signed in there; zero if the provider does not say
	Refresh         string    // the refresh token, with which Again asks; "" for none
}

// Providers sends requests to providers. Its methods may be called from many goroutines.
type Providers struct {
	http *http.Client
	now  func() time.Time

	mu    sync.Mutex // guards the following
	known map[string]known
}

type known struct {
	p     *oidc.Provider
	until time.Time
}

// New returns Providers that use t, or http.DefaultTransport if t is nil.
func New(t http.RoundTripper, now func() time.Time) *Providers {
	if t == nil {
		t = http.DefaultTransport
	}
	return &Providers{http: &http.Client{Transport: bounded{t}, Timeout: timeout}, now: now, known: map[string]known{}}
}

// bounded cuts the bodies of answers off after maxAnswer bytes.
type bounded struct{ http.RoundTripper }

func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	res, err := b.RoundTripper.RoundTrip(r)
	if err == nil {
		res.Body = struct {
			io.Reader
			io.Closer
		}{io.LimitReader(res.Body, maxAnswer), res.Body}
	}
	return res, err
}

// provider returns the metadata of an issuer, which it fetches once an hour. The cache also
// keeps issuers that the owner has removed, so it is emptied if it grows.
func (p *Providers) provider(ctx context.Context, issuer string) (*oidc.Provider, error) {
	p.mu.Lock()
	k, ok := p.known[issuer]
	p.mu.Unlock()
	if ok && p.now().Before(k.until) {
		return k.p, nil
	}
	// The provider keeps this context to fetch keys later, so the context must not end with
	// the request.
	found, err := oidc.NewProvider(oidc.ClientContext(context.WithoutCancel(ctx), p.http), issuer)
	if err != nil {
		return nil, fmt.Errorf("read the metadata of %s: %w", issuer, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.known) > 100 {
		clear(p.known)
	}
	p.known[issuer] = known{found, p.now().Add(discover)}
	return found, nil
}

func (c Config) oauth(p *oidc.Provider, redirect string) *oauth2.Config {
	return &oauth2.Config{ClientID: c.ClientID, ClientSecret: c.Secret, Endpoint: p.Endpoint(), RedirectURL: redirect, Scopes: append([]string{oidc.ScopeOpenID}, c.Scopes...)}
}

// Ask is one request to a provider to identify a person. State, Nonce and Verifier are random;
// the answer must match them.
type Ask struct {
	State, Nonce, Verifier string
	Redirect               string // the URL to which the provider sends the browser back
	Again                  bool   // the person has to sign in at the provider even if signed in there
}

// URL returns the provider's address to which the browser is sent.
func (p *Providers) URL(ctx context.Context, c Config, a Ask) (string, error) {
	provider, err := p.provider(ctx, c.Issuer)
	if err != nil {
		return "", err
	}
	options := []oauth2.AuthCodeOption{oidc.Nonce(a.Nonce), oauth2.S256ChallengeOption(a.Verifier)}
	if a.Again {
		options = append(options, oauth2.SetAuthURLParam("prompt", "login"), oauth2.SetAuthURLParam("max_age", "0"))
	}
	return c.oauth(provider, a.Redirect).AuthCodeURL(a.State, options...), nil
}

// Answer redeems the code with which the provider sent the browser back, and returns the
// person. iss is the issuer that the answer names (RFC 9207), "" if it names none. The caller
// has checked the state.
func (p *Providers) Answer(ctx context.Context, c Config, a Ask, code, iss string) (Person, error) {
	if iss != "" && iss != c.Issuer {
		return Person{}, errors.New("the answer comes from another provider")
	}
	provider, err := p.provider(ctx, c.Issuer)
	if err != nil {
		return Person{}, err
	}
	ctx = oidc.ClientContext(ctx, p.http)
	token, err := c.oauth(provider, a.Redirect).Exchange(ctx, code, oauth2.VerifierOption(a.Verifier))
	if err != nil {
		return Person{}, fmt.Errorf("redeem the code: %w", withoutSecrets(err))
	}
	return p.person(ctx, provider, c, token, &a.Nonce)
}

// Again asks a provider about a person without a browser, with the refresh token of an earlier
// Person.
func (p *Providers) Again(ctx context.Context, c Config, refresh string) (Person, error) {
	provider, err := p.provider(ctx, c.Issuer)
	if err != nil {
		return Person{}, err
	}
	ctx = oidc.ClientContext(ctx, p.http)
	token, err := c.oauth(provider, "").TokenSource(ctx, &oauth2.Token{RefreshToken: refresh}).Token()
	if err != nil {
		return Person{}, fmt.Errorf("redeem the refresh token: %w", withoutSecrets(err))
	}
	return p.person(ctx, provider, c, token, nil)
}

// person verifies the ID token, and adds the claims of the user info endpoint. The token must
// be signed with a current key of the provider, be made for this client, have not expired, and
// have the nonce of the request, if nonce is not nil.
func (p *Providers) person(ctx context.Context, provider *oidc.Provider, c Config, token *oauth2.Token, nonce *string) (Person, error) {
	raw, ok := token.Extra("id_token").(string)
	if !ok {
		return Person{}, errors.New("the provider's answer has no ID token")
	}
	id, err := provider.VerifierContext(ctx, &oidc.Config{ClientID: c.ClientID, Now: p.now}).Verify(ctx, raw)
	if err != nil {
		return Person{}, fmt.Errorf("check the provider's ID token: %w", err)
	}
	if nonce != nil && subtle.ConstantTimeCompare([]byte(id.Nonce), []byte(*nonce)) != 1 {
		return Person{}, errors.New("check the provider's ID token: it belongs to another request")
	}
	who := Person{Issuer: id.Issuer, Subject: id.Subject, Refresh: token.RefreshToken}
	if err := id.Claims(&who.Claims); err != nil {
		return Person{}, fmt.Errorf("read the provider's ID token: %w", err)
	}
	if azp, ok := who.Claims["azp"].(string); ok && azp != c.ClientID {
		return Person{}, errors.New("check the provider's ID token: it is for another client")
	}
	if at, ok := who.Claims["auth_time"].(float64); ok {
		who.SignedIn = time.Unix(int64(at), 0)
	}
	if who.Subject == "" || len(who.Subject) > 255 {
		return Person{}, errors.New("check the provider's ID token: its subject must have 1 to 255 bytes")
	}
	if provider.UserInfoEndpoint() == "" {
		return who, nil
	}
	// Many providers give names, addresses and groups only here and not in ID tokens.
	info, err := provider.UserInfo(ctx, oauth2.StaticTokenSource(token))
	if err != nil {
		return Person{}, errors.New("the provider's user info endpoint did not give the claims of the person") // err may contain its whole answer
	}
	var more map[string]any
	if info.Subject != who.Subject {
		return Person{}, errors.New("check the provider's user info: it is about another person")
	}
	if err := info.Claims(&more); err != nil {
		return Person{}, fmt.Errorf("read the claims of the person: %w", err)
	}
	if who.Claims["email"] != nil {
		delete(more, "email_verified") // it is about the address in more, and the one in the ID token is used
	}
	maps.Copy(more, who.Claims)
	who.Claims = more
	return who, nil
}

// ErrRefused means that the provider refused a code or a refresh token.
var ErrRefused = errors.New("the provider refuses")

// withoutSecrets returns an error of the token endpoint without the body of the answer, which
// may contain secrets.
func withoutSecrets(err error) error {
	var r *oauth2.RetrieveError
	if !errors.As(err, &r) {
		return err
	}
	if r.Response != nil && r.Response.StatusCode >= 500 {
		return fmt.Errorf("the provider answered %s", r.Response.Status)
	}
	return fmt.Errorf("%w: %.40q", ErrRefused, r.ErrorCode)
}
