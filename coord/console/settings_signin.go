package console

import (
	"errors"
	"net/http"
	"net/url"
	"strings"
	"time"

	"weft/coord/ops"
)

// signInSettingsView is how people sign in, and for how long.
type signInSettingsView struct {
	Change        bool
	Demanded      bool
	Match         string // the revision that the forms change
	PasskeyDomain string
	Providers     []providerRow
	SeesProviders bool
	Waiting       string // how many people wait for approval, "" for none
	Facts         []factView

	Problem       string // with what is demanded
	DomainProblem string
	NewDomain     string
}

type providerRow struct{ ID, Title, Issuer, Path string }

type factView struct{ What, Text string }

func (c *Console) signInSettings(v *visit) error {
	return c.signInSettingsPage(v, http.StatusOK, signInSettingsView{})
}

func (c *Console) signInSettingsPage(v *visit, status int, view signInSettingsView) error {
	now, err := c.ops.SignInSettings(v.actor)
	if err != nil {
		return hide(err)
	}
	view.Change = v.actor.May("sign-in.set")
	view.Demanded, view.PasskeyDomain, view.Match = now.Demanded, clean(now.PasskeyDomain), ops.SignInRevision(now)
	if view.DomainProblem == "" {
		view.NewDomain = view.PasskeyDomain
	}
	list, err := c.ops.Providers(v.ctx(), v.actor)
	if err != nil && !errors.Is(err, ops.ErrForbidden) {
		return err
	}
	view.SeesProviders = err == nil
	for _, p := range list {
		view.Providers = append(view.Providers, providerRow{clean(p.ID), clean(p.Title), clean(p.Issuer), providerPath(p.ID)})
	}
	if waiting, err := c.ops.Identities(v.ctx(), v.actor); err == nil {
		n := 0
		for _, i := range waiting {
			if i.UserID == "" {
				n++
			}
		}
		if n > 0 {
			view.Waiting = plural(n, "person")
			if n > 1 {
				view.Waiting = thousands(n) + " people"
			}
		}
	}
	view.Facts = []factView{
		{"A session without requests ends after", spanText(c.idle)},
		{"Every session ends after", spanText(c.maxAge)},
		{"A session that began at a provider asks there again after", spanText(ops.ProviderLife)},
		{"A sign-in link is good for", spanText(ops.LinkLife)},
		{"What hands over an account or the network wants a sign-in of the last", spanText(ops.FreshFor)},
	}
	return c.render(v, status, "signinsettings", view)
}

// spanText is a duration for people.
func spanText(d time.Duration) string {
	switch {
	case d >= 48*time.Hour && d%(24*time.Hour) == 0:
		return plural(int(d/(24*time.Hour)), "day")
	case d >= time.Hour && d%time.Hour == 0:
		return plural(int(d/time.Hour), "hour")
	}
	return plural(int(d/time.Minute), "minute")
}

// setDemanded says whether operators, admins and owners need a second factor.
func (c *Console) setDemanded(v *visit) error {
	demanded := v.r.PostForm.Get("demanded") == "on"
	_, err := ops.Do(v.ctx(), c.ops, v.actor, ops.SetSignIn{Match: []string{v.r.PostForm.Get("match")}, Demanded: &demanded})
	if problem := changeProblem(err); problem != "" {
		return c.signInSettingsPage(v, http.StatusUnprocessableEntity, signInSettingsView{Problem: problem})
	}
	if err != nil {
		return err
	}
	return v.redirect("/settings/sign-in?done=decided")
}

// setPasskeyDomain has passkeys be for another domain, so that those of before do not
// work any more.
func (c *Console) setPasskeyDomain(v *visit) error {
	domain := strings.TrimSpace(cut(v.r.PostForm.Get("domain"), 300))
	_, err := ops.Do(v.ctx(), c.ops, v.actor, ops.SetSignIn{Match: []string{v.r.PostForm.Get("match")}, PasskeyDomain: &domain})
	if problem := changeProblem(err); problem != "" {
		return c.signInSettingsPage(v, http.StatusUnprocessableEntity, signInSettingsView{DomainProblem: cleanLong(problem), NewDomain: clean(domain)})
	}
	if err != nil {
		return err
	}
	return v.redirect("/settings/sign-in?done=decided")
}

// changeProblem is problemText with changes by somebody else.
func changeProblem(err error) string {
	if errors.Is(err, ops.ErrChanged) {
		return "Somebody else changed this meanwhile. Look at it again, then repeat."
	}
	return problemText(err)
}

// providerForm is the page of a provider, or of a new one.
type providerForm struct {
	New, Change bool
	ID, Path    string
	Title       string
	Issuer      string
	ClientID    string
	HasSecret   bool
	Scopes      string
	GroupsClaim string
	NameClaim   string
	AdmitClaim  string
	AdmitValue  string
	Match       string
	Answer      string // the address that the provider is told
	Created     stamp
	Problem     string
	Danger      string // with removing it
}

func providerPath(id string) string {
	return "/settings/sign-in/provider?id=" + url.QueryEscape(id)
}

// answerURL is the address that a provider sends people back to.
func (c *Console) answerURL(v *visit, id string) string {
	here := c.hereURL(v)
	return here.JoinPath("sign-in/with", id, "answer").String()
}

func (c *Console) newProvider(v *visit) error {
	if err := only(v.actor, "oidc.set"); err != nil {
		return err
	}
	if err := c.ops.CheckFresh(v.actor, ops.SetProvider{}); err != nil {
		return err
	}
	return c.renderProvider(v, http.StatusOK, providerForm{New: true, Scopes: "profile email"})
}

func (c *Console) renderProvider(v *visit, status int, view providerForm) error {
	view.Change = v.actor.May("oidc.set")
	if view.ID == "" || view.New {
		view.Answer = c.answerURL(v, "ID")
	} else if idPattern.MatchString(view.ID) {
		view.Answer = c.answerURL(v, view.ID)
	}
	return c.render(v, status, "provider", view)
}

func (c *Console) providerPage(v *visit) error {
	return c.showProvider(v, http.StatusOK, v.r.URL.Query().Get("id"), providerForm{})
}

// showProvider shows a provider as it is; view says what is wrong, if anything.
func (c *Console) showProvider(v *visit, status int, id string, view providerForm) error {
	p, err := c.ops.Provider(v.ctx(), v.actor, id)
	if err != nil {
		return hide(err)
	}
	return c.renderProvider(v, status, providerForm{
		ID: clean(p.ID), Path: providerPath(p.ID), Title: clean(p.Title), Issuer: asTyped([]string{p.Issuer}), ClientID: asTyped([]string{p.ClientID}), HasSecret: p.Secret != nil,
		Scopes: asTyped([]string{p.Scopes}), GroupsClaim: clean(p.GroupsClaim), NameClaim: clean(p.NameClaim), AdmitClaim: clean(p.AdmitClaim), AdmitValue: asTyped([]string{p.AdmitValue}),
		Match: ops.ProviderRevision(p), Created: c.stamp(p.Created), Danger: view.Danger,
	})
}

// providerTyped reads the form. The secret is not in what the form shows again.
func providerTyped(v *visit) (ops.SetProvider, providerForm) {
	f := v.r.PostForm
	field := func(name string) string { return strings.TrimSpace(cut(f.Get(name), 600)) }
	view := providerForm{
		ID: field("id"), Title: field("title"), Issuer: field("issuer"), ClientID: field("client"), Scopes: field("scopes"),
		GroupsClaim: field("groups"), NameClaim: field("called"), AdmitClaim: field("claim"), AdmitValue: field("value"), Match: field("match"),
	}
	c := ops.SetProvider{ID: view.ID, Title: &view.Title, Issuer: &view.Issuer, ClientID: &view.ClientID, Scopes: &view.Scopes, GroupsClaim: &view.GroupsClaim, NameClaim: &view.NameClaim, AdmitClaim: &view.AdmitClaim, AdmitValue: &view.AdmitValue}
	if view.Title == "" {
		c.Title = &c.ID
	}
	if secret := strings.TrimSpace(cut(f.Get("secret"), 4096)); secret != "" || f.Get("nosecret") == "1" {
		c.Secret = &secret
	}
	shown := view
	for _, s := range []*string{&shown.ID, &shown.Title, &shown.Issuer, &shown.ClientID, &shown.Scopes, &shown.GroupsClaim, &shown.NameClaim, &shown.AdmitClaim, &shown.AdmitValue, &shown.Match} {
		*s = asTyped([]string{strings.ToValidUTF8(*s, "")})
	}
	shown.Path = providerPath(view.ID)
	return c, shown
}

func (c *Console) addProvider(v *visit) error {
	set, view := providerTyped(v)
	set.New = true
	return c.setProvider(v, set, view)
}

func (c *Console) editProvider(v *visit) error {
	set, view := providerTyped(v)
	set.Match = []string{v.r.PostForm.Get("match")}
	view.HasSecret = v.r.PostForm.Get("has-secret") == "1"
	return c.setProvider(v, set, view)
}

func (c *Console) setProvider(v *visit, set ops.SetProvider, view providerForm) error {
	p, err := ops.Do(v.ctx(), c.ops, v.actor, set)
	if problem := changeProblem(err); problem != "" {
		if errors.Is(err, ops.ErrTaken) {
			problem = "There is a provider with this id already."
		}
		view.New, view.Problem = set.New, cleanLong(problem)
		return c.renderProvider(v, http.StatusUnprocessableEntity, view)
	}
	if err != nil {
		return err
	}
	if set.New {
		return v.redirect(providerPath(p.ID) + "&done=provider")
	}
	return v.redirect(providerPath(p.ID) + "&done=decided")
}

// removeProvider wants the id typed: whoever signed in there is signed out.
func (c *Console) removeProvider(v *visit) error {
	id := cut(v.r.PostForm.Get("id"), 200)
	if strings.TrimSpace(v.r.PostForm.Get("typed")) != id {
		if !v.actor.May("oidc.set") {
			return ops.ErrForbidden
		}
		return c.showProvider(v, http.StatusUnprocessableEntity, id, providerForm{Danger: "That is not the id. Nothing was removed."})
	}
	if _, err := ops.Do(v.ctx(), c.ops, v.actor, ops.RemoveProvider{ID: id}); err != nil {
		return err
	}
	return v.redirect("/settings/sign-in?done=noprovider")
}
