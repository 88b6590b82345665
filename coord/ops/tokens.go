package ops

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"weft/coord/store"
	"weft/overlay/cert"
)

// How long API tokens are valid, and how many there can be.
const (
	DefaultTokenLife = 90 * 24 * time.Hour
	maxTokenLife     = 366 * 24 * time.Hour
	maxLiveTokens    = 50                  // valid tokens of one service
	tokenKeep        = 90 * 24 * time.Hour // how long a token is listed after it has ended
)

// ErrUnauthorized refuses a request whose token is unknown, revoked or expired.
var ErrUnauthorized = errors.New("not signed in")

// CreateToken makes an API token for a service.
type CreateToken struct {
	User        string        `json:"user" required:"true" doc:"the service: name or id"`
	Description string        `json:"description,omitempty" doc:"for people: which program uses the token, and where; at most 100 bytes"`
	Life        time.Duration `json:"-"` // 1 minute to 366 days; 0 for 90 days
	Endless     bool          `json:"endless,omitempty" doc:"the token does not expire; revoke it when it is not needed any more"`
}

// TokenCreated is a new API token. Only this answer contains it; the server stores a hash.
type TokenCreated struct {
	ID      string     `json:"id"`
	User    string     `json:"user"`
	Token   string     `json:"token"`
	Expires *time.Time `json:"expires"` // nil if it does not expire
}

// Made implements maker.
func (t TokenCreated) Made() string { return "the token " + t.ID }

func (CreateToken) operation() *Operation { return opTokenCreate }

func (c CreateToken) run(tx *Tx) (none TokenCreated, err error) {
	u, err := findUser(&tx.Reader, tx.s.network, tx.actor, c.User)
	if err == nil {
		err = tx.may(target{kind: "token", owner: u.ID})
	}
	if err != nil {
		tx.asked = true
		return none, About(KindUser, c.User, err)
	}
	if err := tx.mayGrant(Role(u.Role), u.Tags); err != nil {
		return none, err
	}
	if c.Life == 0 {
		c.Life = DefaultTokenLife
	}
	switch {
	case u.Suspended != nil:
		return none, fmt.Errorf("%s: %w (weft-server users resume %[1]s)", u.Name, ErrSuspended)
	case u.Kind != store.Service:
		return none, Invalid("%s is a person; tokens are for services: create one first (weft-server users create NAME --service)", u.Name)
	case !c.Endless && (c.Life < minKeyLife || c.Life > maxTokenLife):
		return none, Invalid("a token can be valid for 1 minute to 366 days, not %s, or without an end (--expires never)", spanText(c.Life))
	}
	others, err := tx.Tokens(tx.s.network, u.ID)
	if err != nil {
		return none, err
	}
	if live := len(slices.DeleteFunc(others, func(t store.Token) bool { return !t.Live(tx.now) })); live >= maxLiveTokens {
		return none, Invalid("%s has %d tokens already; revoke one that is not needed any more (weft-server tokens list shows them)", u.Name, live)
	}
	word := cert.NewAPIToken(cert.PinOf(tx.s.auth.Server.Cert)).String()
	t := store.Token{ID: newID(), Hash: HashToken(word), UserID: u.ID, User: u.Name, MadeBy: tx.actor.UserID, Maker: tx.makerName(), Description: printable(c.Description, 100), Created: tx.now.UTC().Truncate(time.Second), From: []string{}}
	if !c.Endless {
		at := tx.now.Add(c.Life).UTC().Truncate(time.Second)
		t.Expires = &at
	}
	if err := tx.CreateToken(tx.s.network, t); err != nil {
		return none, err
	}
	tx.did(tokenTarget(t), nil, t)
	return TokenCreated{ID: t.ID, User: u.Name, Token: word, Expires: t.Expires}, nil
}

// makerName returns the name of the actor's user, "" for root and the server.
func (tx *Tx) makerName() string {
	if tx.actor.UserID == "" {
		return ""
	}
	return tx.actor.User
}

func tokenTarget(t store.Token) target {
	return target{kind: "token", id: t.ID, name: t.Description, owner: t.UserID}
}

// RevokeToken makes an API token unusable at once. Revoking a token again changes nothing.
type RevokeToken struct{ ID string }

func (RevokeToken) operation() *Operation { return opTokenRevoke }

func (c RevokeToken) run(tx *Tx) (store.Token, error) {
	t, err := tx.Token(tx.s.network, c.ID)
	if err == nil && opTokenRead.authorize(tx.actor, tokenTarget(t)) != nil {
		err = ErrNotFound
	}
	if err == nil {
		err = tx.may(tokenTarget(t))
	}
	if err != nil {
		tx.asked = true
		return t, About(KindToken, c.ID, err)
	}
	if err := tx.RevokeToken(tx.s.network, c.ID, tx.now); err != nil {
		return t, err
	}
	if t.Revoked == nil {
		at := tx.now.UTC().Truncate(time.Second)
		t.Revoked = &at
		tx.did(tokenTarget(t), nil, nil)
	}
	return t, nil
}

// Tokens lists the API tokens that an actor may see, newest first: those of one service, or of
// all services if user is "". The list is not nil.
func (s *Service) Tokens(ctx context.Context, a Actor, user string) ([]store.Token, error) {
	list := []store.Token{}
	if err := opTokenRead.asks(a); err != nil {
		return list, err
	}
	err := s.store.Read(ctx, func(r *store.Reader) error {
		id := ""
		if user != "" {
			u, err := findUser(r, s.network, a, user)
			if err != nil {
				return About(KindUser, user, err)
			}
			id = u.ID
		}
		tokens, err := r.Tokens(s.network, id)
		for _, t := range tokens {
			if opTokenRead.authorize(a, tokenTarget(t)) == nil {
				list = append(list, s.uses.with(t))
			}
		}
		return err
	})
	return list, err
}

// Authenticate returns the actor for an API token that was sent from the address from. It returns
// ErrUnauthorized for a token that is unknown, revoked, suspended or expired. It counts refusals
// for the audit, and records the use of the token.
func (s *Service) Authenticate(ctx context.Context, token string, from netip.Addr) (Actor, error) {
	var t store.Token
	var u store.User
	err := s.store.Read(ctx, func(r *store.Reader) (err error) {
		if t, err = r.TokenByHash(s.network, HashToken(token)); err == nil {
			u, err = r.User(s.network, t.UserID)
		}
		return err
	})
	a, now := Actor{Via: ViaAPI, From: from}, s.now()
	if isNotFound(err) {
		s.refusals.add(now, a, opTokenUse, target{}, "no such token")
		return Actor{}, fmt.Errorf("there is no such token: %w", ErrUnauthorized)
	}
	if err != nil {
		return Actor{}, err
	}
	a = actorOf(u, ViaAPI, from)
	a.Token = t.ID
	if err := ended(t, now); err != nil {
		s.refusals.add(now, a, opTokenUse, target{}, "a token that has ended")
		return Actor{}, err
	}
	s.uses.add(t, now, from)
	return a, nil
}

// RefusedToken counts a request to the API that was refused before its token was checked. why
// gives the reason in a few words, and must not contain anything from the request.
func (s *Service) RefusedToken(from netip.Addr, why string) {
	s.refusals.add(s.now(), Actor{Via: ViaAPI, From: from}, opTokenUse, target{}, why)
}

// ended returns nil if a token can be used, or an error that says why not.
func ended(t store.Token, now time.Time) error {
	switch {
	case t.Suspended:
		return fmt.Errorf("the token %s does not work while %s is suspended: %w", t.ID, whoIs(t), ErrUnauthorized)
	case t.Revoked != nil:
		return fmt.Errorf("the token %s was revoked: %w", t.ID, ErrUnauthorized)
	case !t.Live(now):
		return fmt.Errorf("the token %s expired on %s: %w", t.ID, t.Expires.Format(time.DateOnly), ErrUnauthorized)
	}
	return nil
}

// whoIs names the users whose suspension makes a token unusable.
func whoIs(t store.Token) string {
	if t.Maker == "" {
		return t.User
	}
	return t.User + ", or " + t.Maker + " who made it,"
}
