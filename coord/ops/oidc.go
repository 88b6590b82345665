package ops

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"weft/coord/store"
)

// People who sign in elsewhere (OpenID Connect). Who somebody is, is issuer and subject:
// what else a provider says of them is for people to look at, and gives nobody an account
// that is there.

// ProviderLife is how long a session lasts that began at a provider, unless the provider
// extends it: somebody who was removed there is out by then.
const ProviderLife = 12 * time.Hour

// The bounds of what strangers can grow.
const (
	maxProviders = 20
	maxWaiting   = 100
	maxGroups    = 200
)

// ErrTooManyWaiting refuses somebody new while too many people wait for approval.
var ErrTooManyWaiting = errors.New("too many people wait for approval")

// ErrNotAdmitted refuses somebody who was approved by a rule whose claim they do not have any more.
var ErrNotAdmitted = errors.New("the provider does not report any more what this person was approved for")

var providerPattern = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$`)

// SetProvider makes a provider, or changes one: nil leaves what is.
type SetProvider struct {
	ID          string   `json:"-"`
	New         bool     `json:"-"` // there must be none with this ID, else there must
	Match       []string `json:"-"` // the revisions that it may change (ProviderRevision); nil for any
	Title       *string  `json:"title,omitempty" doc:"what the button says; the id if not given"`
	Issuer      *string  `json:"issuer,omitempty" doc:"its address, as it calls itself: https://accounts.example.org"`
	ClientID    *string  `json:"client_id,omitempty"`
	Secret      *string  `json:"client_secret,omitempty" doc:"is never shown again; empty for a public client"`
	Scopes      *string  `json:"scopes,omitempty" doc:"beside openid, separated by spaces; profile and email if not given. offline_access keeps sessions for as long as the provider extends them"`
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
		return store.Provider{}, Invalid("%d providers are the most", maxProviders)
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
		return p, Invalid("say which client this server is there: client_id")
	case (p.AdmitClaim == "") != (p.AdmitValue == ""):
		return p, Invalid("to approve people by a claim, give the claim and its value")
	case c.Secret == nil && i >= 0 && p.Issuer != old.Issuer && old.Secret != nil:
		return p, Invalid("the secret is for %s: give the one for the new issuer", old.Issuer)
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

// RemoveProvider removes a provider. Whoever signed in there is signed out.
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

// SignInProviders lists the providers, for who signs in.
func (s *Service) SignInProviders(ctx context.Context) (list []store.Provider, err error) {
	err = s.store.Read(ctx, func(r *store.Reader) (err error) { list, err = r.Providers(s.network); return err })
	return list, err
}

// ProviderSecret opens the secret of a provider, for asking it.
func (s *Service) ProviderSecret(p store.Provider) (string, error) {
	if p.Secret == nil {
		return "", nil
	}
	b, err := s.auth.Unseal(providerSecret(p.ID, p.Issuer), p.Secret)
	return string(b), err
}

// Identities lists who people are at providers, those first who wait for approval.
func (s *Service) Identities(ctx context.Context, a Actor) (list []store.Identity, err error) {
	if err := opIdentityRead.authorize(a, target{kind: "identity"}); err != nil {
		return nil, err
	}
	err = s.store.Read(ctx, func(r *store.Reader) (err error) { list, err = r.Identities(s.network); return err })
	return list, err
}

func identityTarget(i store.Identity) target {
	return target{kind: "identity", id: i.ID, name: printable(i.Name, 64)}
}

// Approve approves somebody who waits: as a new user, or as one that is there.
type Approve struct {
	ID   string `json:"-"`
	User string `json:"user,omitempty" doc:"name of the user, who is made if there is none; after what the provider says if not given"`
}

func (Approve) operation() *Operation { return opIdentityDecide }

func (c Approve) run(tx *Tx) (store.Identity, error) {
	if err := tx.may(target{kind: "identity"}); err != nil {
		return store.Identity{}, err
	}
	i, err := tx.IdentityByID(tx.s.network, c.ID)
	if err != nil {
		return i, fmt.Errorf("identity %q: %w", printable(c.ID, 64), err)
	}
	if i.UserID != "" {
		return i, fmt.Errorf("%s was approved before: %w", i.User, ErrTaken)
	}
	var u store.User
	if c.User != "" {
		if err := checkUserName(c.User); err != nil {
			return i, err
		}
		u, err = tx.UserByName(tx.s.network, c.User)
		if err == nil { // who lets somebody in as a user makes that user's rights theirs
			err = tx.mayGrant(Role(u.Role), u.Tags)
		}
	} else {
		err = ErrNotFound
	}
	if isNotFound(err) {
		u, err = tx.newPerson(cmp.Or(c.User, i.Name), c.User != "")
	}
	if err != nil {
		return i, err
	}
	i.UserID, i.User = u.ID, u.Name
	if err := tx.SetIdentity(tx.s.network, i); err != nil {
		return i, err
	}
	tx.did(identityTarget(i), nil, i)
	return i, nil
}

// Deny forgets somebody who waits, or was approved, who has to wait again then and is
// signed out.
type Deny struct{ ID string }

func (Deny) operation() *Operation { return opIdentityDecide }

func (c Deny) run(tx *Tx) (store.Identity, error) {
	if err := tx.may(target{kind: "identity"}); err != nil {
		return store.Identity{}, err
	}
	i, err := tx.IdentityByID(tx.s.network, c.ID)
	if err == nil && i.UserID != "" {
		var u store.User
		if u, err = tx.User(tx.s.network, i.UserID); err == nil {
			err = tx.mayGrant(Role(u.Role), u.Tags)
		}
		if err == nil {
			err = tx.noteEnds(u, func(s store.Session) bool { return s.Provider == i.Provider })
		}
		if err == nil {
			err = tx.DeleteProviderSessions(tx.s.network, i.UserID, i.Provider)
		}
	}
	if err == nil {
		err = tx.DeleteIdentity(tx.s.network, i.ID)
	}
	if err != nil {
		return i, fmt.Errorf("identity %q: %w", printable(c.ID, 64), err)
	}
	tx.did(identityTarget(i), i, nil)
	return i, nil
}

// newPerson makes a user with a name, or if that is taken and need not be it, one like
// it.
func (tx *Tx) newPerson(name string, exactly bool) (store.User, error) {
	word := strings.Trim(strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', strings.ContainsRune("._+-", r):
			return r
		case r == ' ':
			return '-'
		}
		return -1
	}, name), "._+-")
	if exactly {
		word = name
	}
	if len(word) > 50 && !exactly {
		word = word[:50]
	}
	word = cmp.Or(word, "person")
	for n := 1; ; n++ {
		u := store.User{ID: newID(), Name: word, Kind: store.Person, Role: string(RoleMember), Created: tx.now.UTC().Truncate(time.Second)}
		if n > 1 {
			u.Name = fmt.Sprintf("%s-%d", word, n)
		}
		err := tx.makeUser(u)
		if errors.Is(err, ErrTaken) && !exactly && n < 1000 {
			continue
		}
		if err != nil {
			return u, err
		}
		tx.note(opUserCreate, userTarget(u), nil, userAs(u))
		return u, nil
	}
}

// Foreigner is somebody whom a provider knows.
type Foreigner struct {
	Provider        string
	Issuer, Subject string
	Name, Mail      string
	Groups          []string
	Admitted        bool   // a rule of the provider approves them
	Refresh         string // what asks again, "" for nothing
}

// SignInWithProvider begins a session of whom a provider has proved, if it is somebody
// here. Who is not waits for approval from then on.
type SignInWithProvider struct {
	Who     Foreigner
	Same    string // id of the user that it has to be, "" for anybody
	Session NewSession
	Ends    [32]byte // as in SignIn
}

func (SignInWithProvider) operation() *Operation { return opSignIn }

// run returns the zero value for somebody who waits.
func (c SignInWithProvider) run(tx *Tx) (store.User, error) {
	tx.asked = true // whoever a provider has proved may ask whether it is somebody
	i, err := tx.Identity(tx.s.network, c.Who.Issuer, c.Who.Subject)
	known := err == nil
	if err != nil && !isNotFound(err) {
		return store.User{}, err
	}
	if !known {
		i = store.Identity{ID: newID(), Issuer: c.Who.Issuer, Subject: c.Who.Subject, Created: tx.now}
	}
	i.Provider, i.Name, i.Mail, i.Seen = c.Who.Provider, printable(c.Who.Name, 100), printable(c.Who.Mail, 200), tx.now
	var u store.User
	switch {
	case i.UserID != "" && i.Admitted && !c.Who.Admitted:
		return u, ErrNotAdmitted
	case i.UserID != "":
		if u, err = tx.User(tx.s.network, i.UserID); err == nil {
			err = active(u)
		}
		if err != nil {
			return u, err
		}
	case c.Same != "":
		return u, fmt.Errorf("another person: %w", ErrNotFound)
	case c.Who.Admitted:
		if u, err = tx.newPerson(i.Name, false); err != nil {
			return u, err
		}
		i.UserID, i.Admitted = u.ID, true
	default:
		n, err := tx.Waiting(tx.s.network)
		if err == nil && !known && n >= maxWaiting {
			err = ErrTooManyWaiting
		}
		if err == nil {
			err = tx.SetIdentity(tx.s.network, i)
		}
		if err == nil && !known {
			tx.note(opIdentityAsk, identityTarget(i), nil, i)
		}
		return u, err
	}
	if c.Same != "" && u.ID != c.Same {
		return u, fmt.Errorf("another person: %w", ErrNotFound)
	}
	tx.actor = ConsoleActor(u, tx.actor.From)
	if err := tx.may(userTarget(u)); err != nil {
		return u, err
	}
	if err := tx.SetIdentity(tx.s.network, i); err != nil {
		return u, err
	}
	if err := tx.setGroups(u, c.Who); err != nil {
		return u, err
	}
	if err := tx.endFormer(c.Ends); err != nil {
		return u, err
	}
	session := tx.sessionOf(u, c.Session, store.WithProvider)
	session.Provider, session.Expires = c.Who.Provider, tx.now.Add(ProviderLife)
	if session.Refresh, err = tx.sealRefresh(session, c.Who.Refresh); err != nil {
		return u, err
	}
	if err := tx.putSession(u, session, c.Session); err != nil {
		return u, err
	}
	tx.did(userTarget(u), nil, browserOf(session))
	return u, nil
}

func refreshAbout(s store.Session) string { return "refresh of " + s.UserID + " at " + s.Provider }

func (tx *Tx) sealRefresh(s store.Session, refresh string) ([]byte, error) {
	if refresh == "" {
		return nil, nil
	}
	return tx.s.auth.Seal(refreshAbout(s), []byte(refresh))
}

// setGroups takes the groups that a provider tells of.
func (tx *Tx) setGroups(u store.User, who Foreigner) error {
	var groups []string
	for _, g := range who.Groups {
		if g = printable(g, 100); g != "" && len(groups) < maxGroups {
			groups = append(groups, g)
		}
	}
	return tx.giveGroups(u, func() error { return tx.SetGroups(tx.s.network, u.ID, who.Provider, groups) })
}

// Refresh opens what extends a session at its provider, "" for nothing.
func (s *Service) Refresh(session store.Session) (string, error) {
	if session.Refresh == nil {
		return "", nil
	}
	b, err := s.auth.Unseal(refreshAbout(session), session.Refresh)
	return string(b), err
}

// ExtendSession has a session go on whose provider still knows its person. The server
// does it by itself.
type ExtendSession struct {
	Hash [32]byte
	Who  Foreigner
}

func (ExtendSession) operation() *Operation { return opSessionExtend }

func (c ExtendSession) run(tx *Tx) (none struct{}, err error) {
	session, u, err := tx.Session(tx.s.network, c.Hash)
	if err == nil {
		err = tx.may(userTarget(u))
	}
	tx.asked = true
	if err != nil {
		return none, err
	}
	i, err := tx.Identity(tx.s.network, c.Who.Issuer, c.Who.Subject)
	switch {
	case err != nil:
		return none, err
	case i.UserID != u.ID || session.Provider != c.Who.Provider:
		return none, fmt.Errorf("another person: %w", ErrNotFound)
	case i.Admitted && !c.Who.Admitted:
		return none, ErrNotAdmitted
	}
	sealed, err := tx.sealRefresh(session, c.Who.Refresh)
	if err != nil {
		return none, err
	}
	if err := tx.setGroups(u, c.Who); err != nil {
		return none, err
	}
	if err := tx.Tx.ExtendSession(tx.s.network, c.Hash, tx.now.Add(ProviderLife), sealed); err != nil {
		return none, err
	}
	tx.did(userTarget(u), nil, browserOf(session))
	return none, nil
}

// ProveCode has a session be as good as its network demands, with a code: for who has
// signed in elsewhere.
type ProveCode struct {
	Code    string
	Session [32]byte
}

func (ProveCode) operation() *Operation { return opFactorProve }

func (c ProveCode) run(tx *Tx) (none struct{}, err error) {
	u, err := tx.self()
	if err != nil {
		return none, err
	}
	session, err := tx.ownSession(u, c.Session)
	if err != nil {
		return none, err
	}
	if _, err := tx.TOTP(tx.s.network, u.ID); err != nil {
		return none, fmt.Errorf("codes: %w", err)
	}
	with, err := tx.proveCode(u, session.Method, cmp.Or(c.Code, " "))
	if err != nil {
		return none, err
	}
	if err := tx.SetSessionMethod(tx.s.network, u.ID, session.Hash, with); err != nil {
		return none, err
	}
	session.Method = with
	tx.did(userTarget(u), nil, browserOf(session))
	return none, nil
}
