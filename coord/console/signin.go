package console

import (
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"weft/coord/ops"
	"weft/coord/passhash"
	"weft/coord/ratelimit"
	"weft/coord/store"
	"weft/overlay/fips"
)

// Attempts to sign in. A window of a minute sees at most burst + refill, so the
// bucket holds 5 and gains 5 a minute: at most 10 in any minute.
var (
	perAccount = ratelimit.Limit{Burst: 5, Per: time.Minute}
	perAddr    = ratelimit.Limit{Burst: 30, Per: time.Minute}
)

type signInView struct {
	Name, Next, Problem string
	Again               bool // who it is is known, and asked once more
	Passkey             bool // can be used from this page
	Providers           []providerView
}

// needsPasskeyText is for who has a passkey and did not show it where that is demanded.
const needsPasskeyText = "This network demands your passkey: sign in with it. If you have lost it, ask a person with access to the server: weft-server users reset-second-factor NAME."

// signInForm is the page of signing in.
func (c *Console) signInForm(v *visit, status int, view signInView) error {
	_, why := c.passkeySite(v.r)
	view.Passkey = why == "" && c.ops.PasskeyDomain() != ""
	view.Providers = c.providerViews(v.ctx())
	return c.render(v, status, "signin", view)
}

type welcomeView struct {
	Link, Name, Problem string
	Gone                string // why the link does not work, "" if it does
	Code                bool   // one is needed beside the link
	Invited             bool
	Passkey             bool   // can be made in place of a password
	Here                string // somebody else, who is signed in in this browser
	Providers           []providerView
}

// welcome shows what a one-time link leads to. Opening it uses nothing up:
// mail scanners and link previews open links too.
func (c *Console) welcome(v *visit) error {
	link := v.r.URL.Query().Get("link")
	l, err := c.link(v, link)
	if err != nil {
		return c.noLink(v, err)
	}
	view, err := c.welcomeView(v, link, l)
	if err != nil {
		return err
	}
	return c.render(v, http.StatusOK, "welcome", view)
}

func (c *Console) welcomeView(v *visit, link string, l store.Link) (view welcomeView, err error) {
	view = welcomeView{Link: link, Name: clean(l.User.Name), Invited: l.Invites}
	if l.Invites {
		_, why := c.passkeySite(v.r)
		view.Passkey, view.Providers = why == "", c.providerViews(v.ctx())
	}
	view.Code, err = c.ops.NeedsCode(v.ctx(), l.User.ID)
	return view, err
}

// noLink is the page of a link that does not work here, if that is what err says.
func (c *Console) noLink(v *visit, err error) error {
	switch {
	case errors.Is(err, ops.ErrNotFound):
		return c.render(v, http.StatusGone, "welcome", welcomeView{Gone: "used"})
	case errors.Is(err, ops.ErrInviter):
		return c.render(v, http.StatusForbidden, "welcome", welcomeView{Gone: "inviter"})
	case errors.Is(err, ops.ErrOtherPerson):
		view := welcomeView{Gone: "other"}
		if _, u, err := c.ops.Session(v.ctx(), c.formerSession(v)); err == nil {
			view.Here = clean(u.Name)
		}
		return c.render(v, http.StatusForbidden, "welcome", view)
	}
	return err
}

// choosePassword uses the link up and signs in.
func (c *Console) choosePassword(v *visit) error {
	link, password := v.r.PostForm.Get("link"), v.r.PostForm.Get("password")
	stranger := ops.Actor{Via: ops.ViaConsole, From: c.clientAddr(v.r)}
	l, err := c.link(v, link)
	u := l.User
	former := c.formerSession(v)
	tokens, session := c.newSession(v)
	try := &attempt{limiter: c.logins}
	if err == nil {
		var view welcomeView
		if view, err = c.welcomeView(v, link, l); err != nil {
			return err
		}
		again := func(status int, problem string) error {
			view.Problem = problem
			return c.render(v, status, "welcome", view)
		}
		use := ops.UseLink{Link: ops.HashToken(link), Code: cut(v.r.PostForm.Get("code"), 64), Session: session, Ends: former}
		response := v.r.PostForm.Get("response") // of making a passkey
		if response == "" {
			if problem := checkPassword(password, u.Name); problem != "" {
				return again(http.StatusUnprocessableEntity, problem)
			}
		} else {
			var problem string
			if use.Passkey, problem = c.passkeyOf(v, response, challenge{u.ID, use.Link}); problem != "" {
				return again(http.StatusUnprocessableEntity, problem)
			}
		}
		// By the link, which nobody else has: who knows a password uses none of these up.
		if view.Code {
			if wait, ok := try.take("code link "+string(use.Link[:]), codesPerAccount, c.now()); !ok {
				return again(http.StatusTooManyRequests, tooManyText(v, wait))
			}
		}
		if use.Passkey == nil {
			if use.Password, err = c.hashPassword(v.ctx(), password); err != nil {
				return err
			}
		}
		person := u
		u, err = ops.Do(v.ctx(), c.ops, ops.ConsoleActor(u, stranger.From), use)
		if errors.Is(err, ops.ErrNeedsPasskey) {
			return again(http.StatusUnprocessableEntity, needsPasskeyText)
		}
		if errors.Is(err, ops.ErrWrongCode) || errors.Is(err, ops.ErrNeedsCode) {
			c.ops.Refused(stranger, ops.UseLink{}, person, "wrong code")
			return again(http.StatusUnprocessableEntity, wrongCodeText())
		}
		if errors.Is(err, ops.ErrInvalid) || errors.Is(err, ops.ErrTaken) {
			return again(http.StatusUnprocessableEntity, "That passkey cannot be used here.")
		}
	}
	if err != nil {
		for why, reason := range map[error]string{ops.ErrNotFound: "no such link", ops.ErrInviter: "invited by somebody who may no longer do so", ops.ErrOtherPerson: "invitation of somebody else"} {
			if errors.Is(err, why) {
				c.ops.Refused(stranger, ops.UseLink{}, store.User{}, reason)
			}
		}
		return c.noLink(v, err)
	}
	c.endStreams(func(s *stream) bool { return s.user == u.ID || s.session == former })
	c.setCookies(v, tokens)
	return v.redirect("/devices")
}

// link finds what a link is for, which can be used from this browser.
func (c *Console) link(v *visit, link string) (store.Link, error) {
	if len(link) < 20 || len(link) > 200 {
		return store.Link{}, ops.ErrNotFound
	}
	return c.ops.Link(v.ctx(), ops.HashToken(link), c.formerSession(v))
}

func (c *Console) signInPage(v *visit) error {
	next := localPath(v.r.URL.Query().Get("next"))
	if err := c.authenticate(v); err == nil {
		return v.redirect(orHome(next))
	}
	return c.signInForm(v, http.StatusOK, signInView{Next: next})
}

// signIn checks a name and a password. What it says and how long it takes does
// not depend on whether the name exists.
func (c *Console) signIn(v *visit) error {
	name := strings.TrimSpace(v.r.PostForm.Get("name"))
	password := v.r.PostForm.Get("password")
	view := signInView{Name: clean(cut(name, 64)), Next: localPath(v.r.PostForm.Get("next")), Again: v.r.PostForm.Get("again") != ""}
	stranger := ops.Actor{Via: ops.ViaConsole, From: c.clientAddr(v.r)}
	wrong := func() error {
		view.Problem = "That name and password do not match." + noteFIPS()
		return c.signInForm(v, http.StatusUnprocessableEntity, view)
	}
	if name == "" || len(name) > 64 || password == "" || len(password) > maxPassword {
		return wrong()
	}

	u, err := c.ops.Login(v.ctx(), name)
	if err != nil && !errors.Is(err, ops.ErrNotFound) {
		return err
	}
	try, wait, err := c.attempt(v, "", name, u)
	if err != nil {
		return err
	}
	if wait > 0 {
		c.ops.Refused(stranger, ops.SignIn{}, store.User{}, "too many attempts")
		return c.tooMany(v, view, wait)
	}
	leave, err := c.enqueue(try)
	if err != nil {
		return err
	}
	ok, err := c.passwordIs(v.ctx(), password, u.Password)
	leave()
	reason := "wrong name or password"
	if errors.Is(err, passhash.ErrNotFIPS) {
		ok, err, reason = false, nil, "password from before FIPS mode"
	}
	if err != nil {
		return err
	}
	former := c.formerSession(v)
	tokens, session := c.newSession(v)
	if ok && u.Password != "" {
		_, err = ops.Do(v.ctx(), c.ops, ops.ConsoleActor(u, stranger.From), ops.SignIn{Checked: u.Password, Session: session, Ends: former})
	}
	if errors.Is(err, ops.ErrNeedsPasskey) {
		try.refund()
		view.Problem = needsPasskeyText
		return c.signInForm(v, http.StatusUnprocessableEntity, view)
	}
	if errors.Is(err, ops.ErrNeedsCode) {
		try.refund()
		return c.askCode(v, u, view.Next)
	}
	if !ok || u.Password == "" || errors.Is(err, ops.ErrNotFound) {
		c.ops.Refused(stranger, ops.SignIn{}, u, reason)
		c.log.Info("sign-in refused", "addr", stranger.From, "why", reason)
		return wrong()
	}
	if err != nil {
		return err
	}
	try.refund()
	c.signedIn(v, tokens, former)
	return v.redirect(orHome(view.Next))
}

// noteFIPS is what a refused sign-in says in FIPS mode to everybody, so that it does not
// tell who has an account, or since when.
func noteFIPS() string {
	if !fips.Enabled() {
		return ""
	}
	return " This server is in FIPS mode and does not accept a password that was set before. To set a new one, ask the owner for a link (on the server: weft-server login-link)."
}

// signedIn gives a browser its session, in place of the former one.
func (c *Console) signedIn(v *visit, t tokens, former [32]byte) {
	c.endStreams(func(s *stream) bool { return s.session == former })
	c.setCookies(v, t)
}

// tooManyText says how long to wait, in the header of the answer too.
func tooManyText(v *visit, wait time.Duration) string {
	seconds := int(wait/time.Second) + 1
	v.w.Header().Set("Retry-After", strconv.Itoa(seconds))
	if seconds > 120 {
		return "Too many attempts. Try again in " + plural((seconds+59)/60, "minute") + "."
	}
	return "Too many attempts. Try again in " + plural(seconds, "second") + "."
}

func (c *Console) tooMany(v *visit, view signInView, wait time.Duration) error {
	view.Problem = tooManyText(v, wait)
	return c.signInForm(v, http.StatusTooManyRequests, view)
}

func (c *Console) signOut(v *visit) error {
	if _, err := ops.Do(v.ctx(), c.ops, v.actor, ops.EndSession{Hash: v.session.Hash}); err != nil && !errors.Is(err, ops.ErrNotFound) {
		return err
	}
	c.endStreams(func(s *stream) bool { return s.session == v.session.Hash })
	http.SetCookie(v.w, c.newCookie(v.r, sessionCookie, "", -time.Second))
	return v.redirect("/sign-in")
}

// home is the bare address.
func (c *Console) home(v *visit) error { return v.redirect("/devices") }

func orHome(next string) string {
	if next == "" || next == "/" {
		return "/devices"
	}
	return next
}
