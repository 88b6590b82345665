// Package oidc asks an OpenID provider who somebody is, with the authorization code
// flow, PKCE, state and nonce. It keeps what a provider says of itself, and nothing of
// anybody. It is all that knows the modules that do the work.
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

// maxAnswer bounds an answer of a provider in bytes, and timeout what one may take.
const (
	maxAnswer = 1 << 20
	timeout   = 10 * time.Second
	discover  = time.Hour // how long what a provider says of itself is good
)

// Config is a provider as its owner has described it.
type Config struct {
	Issuer, ClientID, Secret string
	Scopes                   []string // beside openid
}

// Person is who a provider says that somebody is.
type Person struct {
	Issuer, Subject string
	Claims          map[string]any
	SignedIn        time.Time // when that was proved there, zero if it does not say
	Refresh         string    // what asks again without the person, "" for none
}

// Providers asks providers. Its methods may be called from many goroutines.
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

// New returns Providers that use a transport, nil for the usual one.
func New(t http.RoundTripper, now func() time.Time) *Providers {
	if t == nil {
		t = http.DefaultTransport
	}
	return &Providers{http: &http.Client{Transport: bounded{t}, Timeout: timeout}, now: now, known: map[string]known{}}
}

// bounded reads no more than maxAnswer of an answer.
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

// provider reads what an issuer says of itself, once an hour. There are as many as the
// owner has described, and those that were.
func (p *Providers) provider(ctx context.Context, issuer string) (*oidc.Provider, error) {
	p.mu.Lock()
	k, ok := p.known[issuer]
	p.mu.Unlock()
	if ok && p.now().Before(k.until) {
		return k.p, nil
	}
	// The key set keeps this context for later: it must not end with the request.
	found, err := oidc.NewProvider(oidc.ClientContext(context.WithoutCancel(ctx), p.http), issuer)
	if err != nil {
		return nil, fmt.Errorf("ask %s who it is: %w", issuer, err)
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

// Ask is one question to a provider: random words that its answer has to fit.
type Ask struct {
	State, Nonce, Verifier string
	Redirect               string // where the answer goes
	Again                  bool   // the person has to prove who it is now
}

// URL is where a browser goes with a question.
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

// Answer takes the code that came back for a question. iss is who says that it answers,
// "" if nobody does (RFC 9207).
func (p *Providers) Answer(ctx context.Context, c Config, a Ask, code, iss string) (Person, error) {
	if iss != "" && iss != c.Issuer {
		return Person{}, errors.New("the answer is of another provider")
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

// Again asks who somebody is without a browser.
func (p *Providers) Again(ctx context.Context, c Config, refresh string) (Person, error) {
	provider, err := p.provider(ctx, c.Issuer)
	if err != nil {
		return Person{}, err
	}
	ctx = oidc.ClientContext(ctx, p.http)
	token, err := c.oauth(provider, "").TokenSource(ctx, &oauth2.Token{RefreshToken: refresh}).Token()
	if err != nil {
		return Person{}, fmt.Errorf("ask again: %w", withoutSecrets(err))
	}
	return p.person(ctx, provider, c, token, nil)
}

// person reads an ID token: signed by the provider with a key that it has now, for us,
// not over, and an answer to our question.
func (p *Providers) person(ctx context.Context, provider *oidc.Provider, c Config, token *oauth2.Token, nonce *string) (Person, error) {
	raw, ok := token.Extra("id_token").(string)
	if !ok {
		return Person{}, errors.New("the provider does not say who it is")
	}
	id, err := provider.VerifierContext(ctx, &oidc.Config{ClientID: c.ClientID, Now: p.now}).Verify(ctx, raw)
	if err != nil {
		return Person{}, fmt.Errorf("check what the provider says: %w", err)
	}
	if nonce != nil && subtle.ConstantTimeCompare([]byte(id.Nonce), []byte(*nonce)) != 1 {
		return Person{}, errors.New("check what the provider says: it answers another question")
	}
	who := Person{Issuer: id.Issuer, Subject: id.Subject, Refresh: token.RefreshToken}
	if err := id.Claims(&who.Claims); err != nil {
		return Person{}, fmt.Errorf("read what the provider says: %w", err)
	}
	if azp, ok := who.Claims["azp"].(string); ok && azp != c.ClientID {
		return Person{}, errors.New("check what the provider says: it is for another client")
	}
	if at, ok := who.Claims["auth_time"].(float64); ok {
		who.SignedIn = time.Unix(int64(at), 0)
	}
	if who.Subject == "" || len(who.Subject) > 255 {
		return Person{}, errors.New("check what the provider says: a subject of 1 to 255 bytes is wanted")
	}
	if provider.UserInfoEndpoint() == "" {
		return who, nil
	}
	// Many providers put names, addresses and groups only there, not into ID tokens.
	info, err := provider.UserInfo(ctx, oauth2.StaticTokenSource(token))
	if err != nil {
		return Person{}, errors.New("the provider does not tell the claims of the person") // err may have its whole answer
	}
	var more map[string]any
	if info.Subject != who.Subject {
		return Person{}, errors.New("check what the provider says: its claims are of another person")
	}
	if err := info.Claims(&more); err != nil {
		return Person{}, fmt.Errorf("read the claims of the person: %w", err)
	}
	if who.Claims["email"] != nil {
		delete(more, "email_verified") // it is about the address there
	}
	maps.Copy(more, who.Claims)
	who.Claims = more
	return who, nil
}

// ErrRefused is of a provider that knows the person, or the code, no more.
var ErrRefused = errors.New("the provider refuses")

// withoutSecrets is what went wrong at the token endpoint, without what it answered.
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
