package webapi

import (
	"context"
	"net/http"

	"weft/coord/ops"
	"weft/coord/store"
)

// Provider is an OpenID provider with its revision.
type Provider struct {
	store.Provider
	Revision string `json:"revision"` // what If-Match takes
}

func viewProvider(p store.Provider) Provider { return Provider{p, ops.ProviderRevision(p)} }

// ProviderList lists the providers.
type ProviderList struct {
	Providers []Provider `json:"providers"`
}

// NewProvider asks for a provider.
type NewProvider struct {
	ID string `json:"id" doc:"a word of a-z, 0-9 and -. Register https://HOST/sign-in/with/ID/answer as the redirect address at the provider"`
	ops.SetProvider
}

// IdentityList lists the identities of people at providers, those that wait for approval
// first.
type IdentityList struct {
	Identities []store.Identity `json:"identities"`
}

func (a *api) providers() {
	s := a.ops
	add(a, operation{"GET", "/oidc-providers", "listProviders", "List the OpenID providers at which people sign in, without their secrets", "oidc.read", 0},
		func(ctx context.Context, who ops.Actor, _ *struct{}) (ProviderList, error) {
			list, err := s.Providers(ctx, who)
			views := []Provider{}
			for _, p := range list {
				views = append(views, viewProvider(p))
			}
			return ProviderList{views}, err
		})
	add(a, operation{"GET", "/oidc-providers/{id}", "getProvider", "Show a provider, without its secret", "oidc.read", 0},
		func(ctx context.Context, who ops.Actor, in *Word) (Provider, error) {
			p, err := s.Provider(ctx, who, in.ID)
			return viewProvider(p), err
		})
	addSent(a, operation{"POST", "/oidc-providers", "createProvider", "Add an OpenID provider at which people sign in", "oidc.set", http.StatusCreated},
		func(ctx context.Context, who ops.Actor, _ *Sent, body NewProvider) (Provider, error) {
			c := body.SetProvider
			c.ID, c.New = body.ID, true
			return do(ctx, a, who, c, viewProvider)
		})
	addSent(a, operation{"PATCH", "/oidc-providers/{id}", "editProvider", "Change a provider", "oidc.set", 0},
		func(ctx context.Context, who ops.Actor, in *SentTo, body ops.SetProvider) (_ Provider, err error) {
			body.ID, body.New = in.ID, false
			if body.Match, err = in.revisions(); err != nil {
				return Provider{}, err
			}
			return do(ctx, a, who, body, viewProvider)
		})
	add(a, operation{"DELETE", "/oidc-providers/{id}", "deleteProvider", "Remove a provider, and end the sessions that began there", "oidc.set", 0},
		func(ctx context.Context, who ops.Actor, in *Word) (Provider, error) {
			return do(ctx, a, who, ops.RemoveProvider{ID: in.ID}, viewProvider)
		})
	add(a, operation{"GET", "/identities", "listIdentities", "List the identities of people at providers, those that wait for approval first", "identity.read", 0},
		func(ctx context.Context, who ops.Actor, _ *struct{}) (IdentityList, error) {
			list, err := s.Identities(ctx, who)
			return IdentityList{append([]store.Identity{}, list...)}, err
		})
	addSent(a, operation{"POST", "/identities/{id}/approve", "approveIdentity", "Approve an identity that waits, as a new user or an existing one", "identity.decide user.create", 0},
		func(ctx context.Context, who ops.Actor, in *SentTo, body ops.ApproveIdentity) (store.Identity, error) {
			body.ID = in.ID
			return do(ctx, a, who, body, same)
		})
	add(a, operation{"DELETE", "/identities/{id}", "denyIdentity", "Delete an identity; the person is signed out and has to wait for approval again", "identity.decide", 0},
		func(ctx context.Context, who ops.Actor, in *Word) (store.Identity, error) {
			return do(ctx, a, who, ops.DenyIdentity{ID: in.ID}, same)
		})
}
