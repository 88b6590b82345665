package ops

import (
	"context"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"time"

	"weft/coord/store"
)

var providerPattern = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$`)

// SetProvider adds an OpenID provider at which people may sign in, or changes one. Fields that
// are nil change nothing.
type SetProvider struct {
	ID          string   `json:"-"`
	New         bool     `json:"-"` // add a provider; otherwise there must be one with this ID
	Match       []string `json:"-"` // ProviderRevision must be one of these; nil for any
	Title       *string  `json:"title,omitempty" doc:"text of the button; the id if not given"`
	Issuer      *string  `json:"issuer,omitempty" doc:"the provider's address, as in its tokens: https://accounts.example.org"`
	ClientID    *string  `json:"client_id,omitempty"`
	Secret      *string  `json:"client_secret,omitempty" doc:"is never shown again; empty for a public client"`
	Scopes      *string  `json:"scopes,omitempty" doc:"in addition to openid, separated by spaces; profile and email if not given. offline_access keeps sessions for as long as the provider extends them"`
	GroupsClaim *string  `json:"groups_claim,omitempty"`
	NameClaim   *string  `json:"name_claim,omitempty"`
	AdmitClaim  *string  `json:"admit_claim,omitempty"`
	AdmitValue  *string  `json:"admit_value,omitempty"`
}

func (SetProvider) operation() *Operation { return opProviderSet }

func providerTarget(p store.Provider) target {
	return target{kind: "provider", id: p.ID, name: printable(p.Title, 64)}
}

func providerSecret(id, issuer string) string { return "secret of provider " + id + " at " + issuer }

func (c SetProvider) run(tx *Tx) (store.Provider, error) {
	if err := tx.may(target{kind: "provider"}); err != nil {
		return store.Provider{}, err
	}
	list, err := tx.Providers(tx.s.network)
	if err != nil {
		return store.Provider{}, err
	}
	i := slices.IndexFunc(list, func(p store.Provider) bool { return p.ID == c.ID })
	switch {
	case !providerPattern.MatchString(c.ID):
		return store.Provider{}, Invalid("provider %q: want 1 to 32 of a-z, 0-9 and -", printable(c.ID, 64))
	case c.New && i >= 0:
		return store.Provider{}, fmt.Errorf("provider %s: %w", c.ID, ErrTaken)
	case !c.New && i < 0:
		return store.Provider{}, About(KindProvider, c.ID, ErrNotFound)
	case c.New && len(list) >= maxProviders:
		return store.Provider{}, Invalid("a network can have at most %d providers", maxProviders)
	}
	p := store.Provider{ID: c.ID, Title: c.ID, Scopes: "profile email", Created: tx.now.UTC().Truncate(time.Second)}
	var before any
	if i >= 0 {
		p = list[i]
		before = p
		if err := matches(c.Match, ProviderRevision(p)); err != nil {
			return p, fmt.Errorf("provider %s: %w", p.ID, err)
		}
	}
	old := p
	for _, f := range []struct {
		to   *string
		from *string
		what string
		most int
	}{
		{&p.Title, c.Title, "title", 64}, {&p.Issuer, c.Issuer, "issuer", 500}, {&p.ClientID, c.ClientID, "client id", 500}, {&p.Scopes, c.Scopes, "scopes", 500},
		{&p.GroupsClaim, c.GroupsClaim, "groups claim", 100}, {&p.NameClaim, c.NameClaim, "name claim", 100}, {&p.AdmitClaim, c.AdmitClaim, "claim that approves", 100}, {&p.AdmitValue, c.AdmitValue, "value that approves", 500},
	} {
		if f.from == nil {
			continue
		}
		if *f.from != printable(*f.from, f.most) {
			return p, Invalid("%s: want at most %d bytes without control characters", f.what, f.most)
		}
		*f.to = *f.from
	}
	if u, err := url.Parse(p.Issuer); err != nil || u.Scheme != "https" && !(u.Scheme == "http" && isLoopbackHost(u.Hostname())) || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return p, Invalid("issuer %q: want an address such as https://accounts.example.org", printable(p.Issuer, 200))
	}
	switch {
	case p.ClientID == "":
		return p, Invalid("client_id is missing: give the client id that the provider has for this server")
	case (p.AdmitClaim == "") != (p.AdmitValue == ""):
		return p, Invalid("to approve people by a claim, give the claim and its value")
	case c.Secret == nil && i >= 0 && p.Issuer != old.Issuer && old.Secret != nil:
		return p, Invalid("the client secret is for %s: give the one for the new issuer", old.Issuer)
	}
	if c.Secret != nil {
		p.Secret = nil
		if *c.Secret != "" {
			if p.Secret, err = tx.s.auth.Seal(providerSecret(p.ID, p.Issuer), []byte(*c.Secret)); err != nil {
				return p, err
			}
		}
	}
	if err := tx.Tx.SetProvider(tx.s.network, p); err != nil {
		return p, err
	}
	tx.did(providerTarget(p), before, p)
	return p, nil
}

func isLoopbackHost(host string) bool { return host == "127.0.0.1" || host == "::1" }

// RemoveProvider removes a provider. People who signed in there are signed out.
type RemoveProvider struct{ ID string }

func (RemoveProvider) operation() *Operation { return opProviderSet }

func (c RemoveProvider) run(tx *Tx) (store.Provider, error) {
	if err := tx.may(target{kind: "provider"}); err != nil {
		return store.Provider{}, err
	}
	p, err := tx.Provider(tx.s.network, c.ID)
	if err == nil {
		err = tx.noteProviderEnds(p.ID)
	}
	if err == nil {
		err = tx.groupsChange(func() error { return tx.DeleteProvider(tx.s.network, p.ID) })
	}
	if err != nil {
		return p, About(KindProvider, c.ID, err)
	}
	tx.did(providerTarget(p), p, nil)
	return p, nil
}

func (tx *Tx) noteProviderEnds(provider string) error {
	list, err := tx.ProviderSessions(tx.s.network, provider)
	if err != nil {
		return err
	}
	for _, session := range list {
		u, err := tx.User(tx.s.network, session.UserID)
		if err != nil {
			return err
		}
		tx.note(opSignOut, userTarget(u), browserOf(session), nil)
	}
	return nil
}

// Providers lists the providers by id.
func (s *Service) Providers(ctx context.Context, a Actor) (list []store.Provider, err error) {
	if err := opProviderRead.authorize(a, target{kind: "provider"}); err != nil {
		return nil, err
	}
	return s.SignInProviders(ctx)
}

// Provider shows a provider.
func (s *Service) Provider(ctx context.Context, a Actor, id string) (p store.Provider, err error) {
	if err := opProviderRead.authorize(a, target{kind: "provider"}); err != nil {
		return p, err
	}
	err = s.store.Read(ctx, func(r *store.Reader) (err error) { p, err = r.Provider(s.network, id); return err })
	if err != nil {
		return p, About(KindProvider, id, err)
	}
	return p, nil
}

// SignInProviders lists the providers without authorization, for the sign-in page.
func (s *Service) SignInProviders(ctx context.Context) (list []store.Provider, err error) {
	err = s.store.Read(ctx, func(r *store.Reader) (err error) { list, err = r.Providers(s.network); return err })
	return list, err
}

// ProviderSecret returns the client secret of a provider, "" for none.
func (s *Service) ProviderSecret(p store.Provider) (string, error) {
	if p.Secret == nil {
		return "", nil
	}
	b, err := s.auth.Unseal(providerSecret(p.ID, p.Issuer), p.Secret)
	return string(b), err
}
