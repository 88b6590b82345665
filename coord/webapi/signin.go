package webapi

import (
	"context"

	"weft/coord/ops"
	"weft/coord/store"
)

// SignIn is what is demanded of people who sign in and of their devices, with its revision.
type SignIn struct {
	store.SignIn
	Revision string `json:"revision"`
}

func viewSignIn(s store.SignIn) SignIn { return SignIn{s, ops.SignInRevision(s)} }

// signIn adds the operations on what the network demands of people who sign in.
func (a *api) signIn() {
	s := a.ops
	add(a, operation{"GET", "/sign-in", "getSignIn", "Show what is demanded of people who sign in to the console, and of their devices", "sign-in.read", 0},
		func(_ context.Context, who ops.Actor, _ *struct{}) (SignIn, error) {
			now, err := s.SignInSettings(who)
			return viewSignIn(now), err
		})
	addSent(a, operation{"PATCH", "/sign-in", "setSignIn", "Change what is demanded of people who sign in to the console, and of their devices", "sign-in.set", 0},
		func(ctx context.Context, who ops.Actor, in *SentFor, body ops.SetSignIn) (_ SignIn, err error) {
			if body.Match, err = in.revisions(); err != nil {
				return SignIn{}, err
			}
			return do(ctx, a, who, body, viewSignIn)
		})
	add(a, operation{"DELETE", "/users/{id}/second-factor", "resetSecondFactor", "Remove the passkeys and codes of a user who lost them, and sign the user out everywhere", "factor.reset", 0},
		func(ctx context.Context, who ops.Actor, in *Word) (User, error) {
			return do(ctx, a, who, ops.ResetFactors{User: in.ID}, viewUser)
		})
}
