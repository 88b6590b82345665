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
const needsPasskeyText = "This network wants your passkey: sign in with it. If it is lost, whoever has the server helps: weft-server users reset-second-factor NAME."

// signInForm is the page of signing in.
func (c *Console) signInForm(v *visit, status int, view signInView) error {
	_, why := c.passkeySite(v.r)
	view.Passkey = why == "" && c.ops.PasskeyDomain() != ""
	view.Providers = c.providerViews(v.ctx())
	return c.render(v, status, "signin", view)
}

type welcomeView struct {
	Link, Name, Problem string
	Gone                bool
	Code                bool // one is needed beside the link
}

// welcome shows what a one-time link leads to. Opening it uses nothing up:
// mail scanners and link previews open links too.
func (c *Console) welcome(v *visit) error {
	link := v.r.URL.Query().Get("link")
	u, err := c.linkUser(v, link)
	if errors.Is(err, ops.ErrNotFound) {
		return c.render(v, http.StatusGone, "welcome", welcomeView{Gone: true})
	}
	if err != nil {
		return err
	}
	needs, err := c.ops.NeedsCode(v.ctx(), u.ID)
	if err != nil {
		return err
	}
	return c.render(v, http.StatusOK, "welcome", welcomeView{Link: link, Name: clean(u.Name), Code: needs})
}

// choosePassword uses the link up and signs in.
func (c *Console) choosePassword(v *visit) error {
	link, password := v.r.PostForm.Get("link"), v.r.PostForm.Get("password")
	stranger := ops.Actor{Via: ops.ViaConsole, From: c.clientAddr(v.r)}
	u, err := c.linkUser(v, link)
	former := c.formerSession(v)
	tokens, session := c.newSession(v)
	try := &attempt{limiter: c.logins}
	if err == nil {
		view := welcomeView{Link: link, Name: clean(u.Name)}
		if view.Code, err = c.ops.NeedsCode(v.ctx(), u.ID); err != nil {
			return err
		}
		again := func(status int, problem string) error {
			view.Problem = problem
			return c.render(v, status, "welcome", view)
		}
		if problem := checkPassword(password, u.Name); problem != "" {
			return again(http.StatusUnprocessableEntity, problem)
		}
		// By the link, which nobody else has: who knows a password uses none of these up.
		hashed := ops.HashToken(link)
		if view.Code {
			if wait, ok := try.take("code link "+string(hashed[:]), codesPerAccount, c.now()); !ok {
				return again(http.StatusTooManyRequests, tooManyText(v, wait))
			}
		}
		var hash string
		if hash, err = c.hashPassword(v.ctx(), password); err != nil {
			return err
		}
		person := u
		u, err = ops.Do(v.ctx(), c.ops, ops.ConsoleActor(u, stranger.From), ops.UseLink{
			Link: hashed, Code: cut(v.r.PostForm.Get("code"), 64), Password: hash, Session: session, Ends: former})
		if errors.Is(err, ops.ErrNeedsPasskey) {
			return again(http.StatusUnprocessableEntity, needsPasskeyText)
		}
		if errors.Is(err, ops.ErrWrongCode) || errors.Is(err, ops.ErrNeedsCode) {
			c.ops.Refused(stranger, ops.UseLink{}, person, "wrong code")
			return again(http.StatusUnprocessableEntity, wrongCodeText())
		}
	}
	if errors.Is(err, ops.ErrNotFound) {
		c.ops.Refused(stranger, ops.UseLink{}, store.User{}, "no such link")
		return c.render(v, http.StatusGone, "welcome", welcomeView{Gone: true})
	}
	if err != nil {
		return err
	}
	c.endStreams(func(s *stream) bool { return s.user == u.ID || s.session == former })
	c.setCookies(v, tokens)
	return v.redirect("/devices")
}

func (c *Console) linkUser(v *visit, link string) (store.User, error) {
	if len(link) < 20 || len(link) > 200 {
		return store.User{}, ops.ErrNotFound
	}
	return c.ops.Link(v.ctx(), ops.HashToken(link))
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
