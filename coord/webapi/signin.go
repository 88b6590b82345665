package webapi

import (
	"context"

	"weft/coord/ops"
	"weft/coord/store"
)

// SignIn is what is demanded of who signs in and of devices, and which revision of that it is.
type SignIn struct {
	store.SignIn
	Revision string `json:"revision"`
}

func viewSignIn(s store.SignIn) SignIn { return SignIn{s, ops.SignInRevision(s)} }

// signIn is what the network demands of who signs in.
func (a *api) signIn() {
	s := a.ops
	add(a, operation{"GET", "/sign-in", "getSignIn", "Show what is demanded of who signs in to the console, and of people's devices", "sign-in.read", 0},
		func(_ context.Context, who ops.Actor, _ *struct{}) (SignIn, error) {
			now, err := s.SignInSettings(who)
			return viewSignIn(now), err
		})
	addSent(a, operation{"PATCH", "/sign-in", "setSignIn", "Change what is demanded of who signs in to the console, and of people's devices", "sign-in.set", 0},
		func(ctx context.Context, who ops.Actor, in *SentFor, body ops.SetSignIn) (_ SignIn, err error) {
			if body.Match, err = in.revisions(); err != nil {
				return SignIn{}, err
			}
			return do(ctx, a, who, body, viewSignIn)
		})
	add(a, operation{"DELETE", "/users/{id}/second-factor", "resetSecondFactor", "Take from a user what is asked for beside the password, and sign it out everywhere", "factor.reset", 0},
		func(ctx context.Context, who ops.Actor, in *Word) (User, error) {
			return do(ctx, a, who, ops.ResetFactors{User: in.ID}, viewUser)
		})
}
