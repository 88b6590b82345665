package console

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"weft/coord/oidc"
	"weft/coord/ops"
	"weft/coord/store"
)

// askTime is how long somebody has to sign in elsewhere.
const askTime = 10 * time.Minute

// askCookie holds a question that is on its way through a provider, sealed.
const askCookie = "-oidc"

// asking is a question to a provider, and what it is for.
type asking struct {
	Provider string
	Ask      oidc.Ask
	Next     string
	Same     string // id of the user who has to sign in again, "" for anybody
	// Link is the hash of the token of an invitation, zero for none.
	Link [32]byte
	At   time.Time
}

type providerView struct{ ID, Title string }

// providerViews are the providers as the page of signing in shows them.
func (c *Console) providerViews(ctx context.Context) (views []providerView) {
	list, err := c.ops.SignInProviders(ctx)
	if err != nil {
		c.log.Warn("list providers", "err", err)
	}
	for _, p := range list {
		views = append(views, providerView{p.ID, clean(p.Title)})
	}
	return views
}

// provider is the one that a page's address names.
func (c *Console) provider(v *visit) (p store.Provider, cfg oidc.Config, err error) {
	list, err := c.ops.SignInProviders(v.ctx())
	if err != nil {
		return p, cfg, err
	}
	for _, p := range list {
		if p.ID == v.r.PathValue("id") {
			cfg, err := c.providerConfig(p)
			return p, cfg, err
		}
	}
	return p, cfg, ops.ErrNotFound
}

func (c *Console) providerConfig(p store.Provider) (oidc.Config, error) {
	secret, err := c.ops.ProviderSecret(p)
	return oidc.Config{Issuer: p.Issuer, ClientID: p.ClientID, Secret: secret, Scopes: strings.Fields(p.Scopes)}, err
}

// askProvider sends a browser to a provider.
func (c *Console) askProvider(v *visit) error {
	p, cfg, err := c.provider(v)
	if err != nil {
		return err
	}
	q := v.r.URL.Query()
	a := asking{Provider: p.ID, Next: localPath(q.Get("next")), At: c.now()}
	scheme := "http://"
	if c.secure(v.r) {
		scheme = "https://"
	}
	a.Ask = oidc.Ask{State: ops.NewToken(), Nonce: ops.NewToken(), Verifier: ops.NewToken(), Redirect: scheme + v.r.Host + "/sign-in/with/" + p.ID + "/answer"}
	if q.Get("again") != "" && c.authenticate(v) == nil {
		a.Same, a.Ask.Again = v.actor.UserID, true
	}
	if link := q.Get("link"); link != "" {
		l, err := c.link(v, link)
		if err == nil && !l.Invites {
			err = ops.ErrNotFound
		}
		if err != nil {
			return c.noLink(v, err)
		}
		a.Link, a.Same = ops.HashToken(link), ""
	}
	to, err := c.providers.URL(v.ctx(), cfg, a.Ask)
	if err != nil {
		c.log.Warn("sign in with a provider", "provider", p.ID, "err", err)
		return c.signInForm(v, http.StatusBadGateway, signInView{Next: a.Next, Problem: clean(p.Title) + " cannot be asked at the moment. Try again, or sign in another way."})
	}
	sealed, err := c.box.put("provider", c.now().Add(askTime), a)
	if err != nil {
		return err
	}
	http.SetCookie(v.w, c.newCookie(v.r, askCookie, sealed, askTime))
	return v.redirect(to)
}

// answerOfProvider is where a provider sends a browser back to.
func (c *Console) answerOfProvider(v *visit) error {
	q, stranger := v.r.URL.Query(), ops.Actor{Via: ops.ViaConsole, From: c.clientAddr(v.r)}
	p, cfg, err := c.provider(v)
	if err != nil {
		return err
	}
	var a asking
	failed := func(status int, text, why string, err error) error {
		c.ops.Refused(stranger, ops.SignInWithProvider{}, store.User{}, why)
		c.log.Info("sign-in with a provider refused", "provider", p.ID, "addr", stranger.From, "why", why, "err", err)
		return c.signInForm(v, status, signInView{Next: a.Next, Problem: text})
	}
	cookie, err := v.r.Cookie(c.cookieName(v.r, askCookie))
	http.SetCookie(v.w, c.newCookie(v.r, askCookie, "", -time.Second))
	if err != nil || !c.box.take("provider", cookie.Value, c.now(), &a) || a.Provider != p.ID ||
		subtle.ConstantTimeCompare([]byte(q.Get("state")), []byte(a.Ask.State)) != 1 {
		return failed(http.StatusUnprocessableEntity, "That is no answer to a question of this browser, or it took too long. Try again.", "no question of ours", nil)
	}
	if q.Get("error") != "" {
		return failed(http.StatusUnprocessableEntity, clean(p.Title)+" did not sign you in.", "refused by the provider", fmt.Errorf("%.40q", q.Get("error")))
	}
	who, err := c.providers.Answer(v.ctx(), cfg, a.Ask, cut(q.Get("code"), 4096), cut(q.Get("iss"), 1000))
	if err != nil {
		return failed(http.StatusUnprocessableEntity, clean(p.Title)+" did not prove who you are. Try again, or sign in another way.", "not proved by the provider", err)
	}
	// A provider that does not do as it was asked does not prove that it is the person
	// now. A minute is for its clock.
	if a.Ask.Again && who.SignedIn.Before(a.At.Add(-time.Minute)) {
		return failed(http.StatusUnprocessableEntity, clean(p.Title)+" did not ask you to sign in again. Sign in here another way.", "signed in too long ago", nil)
	}
	if !c.useOnce([]byte(cookie.Value)) {
		return failed(http.StatusUnprocessableEntity, "That was used before. Try again.", "answer replayed", nil)
	}
	former := c.formerSession(v)
	tokens, session := c.newSession(v)
	u, err := ops.Do(v.ctx(), c.ops, stranger, ops.SignInWithProvider{Who: foreigner(p, who), Same: a.Same, Link: a.Link, Session: session, Ends: former})
	switch {
	case errors.Is(err, ops.ErrTaken) && a.Link != [32]byte{}:
		return failed(http.StatusForbidden, "You are somebody here already, and that invitation is for somebody else. It was not used up.", "invitation of somebody else", nil)
	case err != nil && a.Link != [32]byte{}:
		c.ops.Refused(stranger, ops.SignInWithProvider{}, store.User{}, "invitation that does not work")
		return c.noLink(v, err)
	case errors.Is(err, ops.ErrNotAdmitted):
		return failed(http.StatusForbidden, clean(p.Title)+" does not report any more what you were approved for. Ask whoever runs this network.", "no longer approved", nil)
	case errors.Is(err, ops.ErrTooManyWaiting):
		return failed(http.StatusServiceUnavailable, "Too many people wait for approval. Ask whoever runs this network.", "too many wait", nil)
	case errors.Is(err, ops.ErrNotFound):
		return failed(http.StatusForbidden, "That is somebody else than who was to sign in again.", "another person", nil)
	case err != nil:
		return err
	case u.ID == "":
		return c.render(v, http.StatusForbidden, "waiting", waitingView{Provider: clean(p.Title), Subject: clean(who.Subject)})
	}
	c.signedIn(v, tokens, former)
	return v.redirect(orHome(a.Next))
}

type waitingView struct{ Provider, Subject string }

// foreigner is what a provider says of somebody, as far as its owner wants to hear it.
func foreigner(p store.Provider, who oidc.Person) ops.Foreigner {
	word := func(claim string) string { s, _ := who.Claims[claim].(string); return s }
	f := ops.Foreigner{Provider: p.ID, Issuer: who.Issuer, Subject: who.Subject, Name: word("preferred_username"), Mail: word("email"), Refresh: who.Refresh}
	if p.NameClaim != "" {
		f.Name = word(p.NameClaim)
	}
	if p.GroupsClaim != "" {
		f.Groups = list(who.Claims[p.GroupsClaim])
	}
	if p.AdmitClaim != "" && p.AdmitValue != "" {
		for _, value := range list(who.Claims[p.AdmitClaim]) {
			f.Admitted = f.Admitted || value == p.AdmitValue
		}
		// Whoever may type any address there is nobody by it.
		if verified, _ := who.Claims["email_verified"].(bool); p.AdmitClaim == "email" && !verified {
			f.Admitted = false
		}
	}
	return f
}

// list is a claim with one value, or several.
func list(claim any) (values []string) {
	switch c := claim.(type) {
	case string:
		return []string{c}
	case bool:
		return []string{fmt.Sprint(c)}
	case []any:
		for _, v := range c {
			if s, ok := v.(string); ok {
				values = append(values, s)
			}
		}
	}
	return values
}

// extend asks the provider of a session that has ended whether its person is still
// there. Of many requests at once one asks.
func (c *Console) extend(ctx context.Context, s store.Session) (store.Session, bool) {
	_, err, _ := c.extending.Do(string(s.Hash[:]), func() (any, error) {
		ctx := context.WithoutCancel(ctx)
		now, _, err := c.ops.Session(ctx, s.Hash)
		if err != nil || c.now().Before(now.Expires) {
			return nil, err
		}
		refresh, err := c.ops.Refresh(now)
		if err != nil {
			return nil, err
		}
		providers, err := c.ops.SignInProviders(ctx)
		if err != nil {
			return nil, err
		}
		for _, p := range providers {
			if p.ID != s.Provider {
				continue
			}
			cfg, err := c.providerConfig(p)
			if err != nil {
				return nil, err
			}
			who, err := c.providers.Again(ctx, cfg, refresh)
			if err != nil {
				return nil, err
			}
			_, err = ops.Do(ctx, c.ops, ops.System(), ops.ExtendSession{Hash: s.Hash, Who: foreigner(p, who)})
			return nil, err
		}
		return nil, ops.ErrNotFound
	})
	if err != nil {
		c.log.Info("a session was not extended by its provider", "provider", s.Provider, "err", err)
		return s, false
	}
	s.Expires = c.now().Add(ops.ProviderLife)
	return s, true
}

// proveCode has a session that began elsewhere be as good as the network demands.
func (c *Console) proveCode(v *visit) error {
	failed := func(status int, text string) error {
		return c.accountPage(v, status, accountProblems{Factor: text})
	}
	u, err := c.ops.Person(v.ctx(), v.actor.UserID)
	if err != nil {
		return err
	}
	try, wait, err := c.attemptCode(v, u)
	if err != nil {
		return err
	}
	if wait > 0 {
		return failed(http.StatusTooManyRequests, tooManyText(v, wait))
	}
	_, err = ops.Do(v.ctx(), c.ops, v.actor, ops.ProveCode{Code: cut(v.r.PostForm.Get("code"), 64), Session: v.session.Hash})
	if errors.Is(err, ops.ErrWrongCode) {
		c.ops.Refused(v.actor, ops.ProveCode{}, u, "wrong code")
		return failed(http.StatusUnprocessableEntity, wrongCodeText())
	}
	if err != nil {
		return err
	}
	try.refund()
	return v.redirect("/devices")
}
