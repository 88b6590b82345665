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
}

type welcomeView struct {
	Link, Name, Problem string
	Gone                bool
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
	return c.render(v, http.StatusOK, "welcome", welcomeView{Link: link, Name: clean(u.Name)})
}

// choosePassword uses the link up and signs in.
func (c *Console) choosePassword(v *visit) error {
	link, password := v.r.PostForm.Get("link"), v.r.PostForm.Get("password")
	stranger := ops.Actor{Via: ops.ViaConsole, From: c.clientAddr(v.r)}
	u, err := c.linkUser(v, link)
	former := c.formerSession(v)
	token, session := c.newSession(v)
	if err == nil {
		if problem := checkPassword(password, u.Name); problem != "" {
			return c.render(v, http.StatusUnprocessableEntity, "welcome", welcomeView{Link: link, Name: clean(u.Name), Problem: problem})
		}
		var hash string
		if hash, err = c.hashPassword(v.ctx(), password); err != nil {
			return err
		}
		u, err = ops.Do(v.ctx(), c.ops, ops.ConsoleActor(u, stranger.From), ops.UseLink{Link: ops.HashToken(link), Password: hash, Session: session, Ends: former})
	}
	if errors.Is(err, ops.ErrNotFound) {
		c.ops.Refused(stranger, ops.UseLink{}, store.User{}, "no such link")
		return c.render(v, http.StatusGone, "welcome", welcomeView{Gone: true})
	}
	if err != nil {
		return err
	}
	c.endStreams(func(s *stream) bool { return s.user == u.ID || s.session == former })
	c.setCookie(v, token)
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
	return c.render(v, http.StatusOK, "signin", signInView{Next: next})
}

// signIn checks a name and a password. What it says and how long it takes does
// not depend on whether the name exists.
func (c *Console) signIn(v *visit) error {
	name := strings.TrimSpace(v.r.PostForm.Get("name"))
	password := v.r.PostForm.Get("password")
	view := signInView{Name: clean(cut(name, 64)), Next: localPath(v.r.PostForm.Get("next"))}
	stranger := ops.Actor{Via: ops.ViaConsole, From: c.clientAddr(v.r)}
	wrong := func() error {
		view.Problem = "That name and password do not match." + noteFIPS()
		return c.render(v, http.StatusUnprocessableEntity, "signin", view)
	}
	if name == "" || len(name) > 64 || password == "" || len(password) > maxPassword {
		return wrong()
	}

	account := "account " + strings.ToLower(name)
	now := c.now()
	// Behind a proxy that is not trusted to name its clients, all of them
	// come from loopback: there only the limit per account holds.
	if addr := stranger.From; addr.IsValid() && !addr.IsLoopback() {
		if addr.Is6() {
			if p, err := addr.Prefix(64); err == nil {
				addr = p.Addr()
			}
		}
		if left, ok := c.logins.Take("addr "+addr.String(), perAddr, now); !ok {
			c.ops.Refused(stranger, ops.SignIn{}, store.User{}, "too many attempts")
			return c.tooMany(v, view, left.Wait)
		}
	}
	if left, ok := c.logins.Take(account, perAccount, now); !ok {
		c.ops.Refused(stranger, ops.SignIn{}, store.User{}, "too many attempts")
		return c.tooMany(v, view, left.Wait)
	}

	u, err := c.ops.Login(v.ctx(), name)
	if err != nil && !errors.Is(err, ops.ErrNotFound) {
		return err
	}
	ok, err := c.passwordIs(v.ctx(), password, u.Password)
	reason := "wrong name or password"
	if errors.Is(err, passhash.ErrNotFIPS) {
		ok, err, reason = false, nil, "password from before FIPS mode"
	}
	if err != nil {
		return err
	}
	former := c.formerSession(v)
	token, session := c.newSession(v)
	if ok && u.Password != "" {
		_, err = ops.Do(v.ctx(), c.ops, ops.ConsoleActor(u, stranger.From), ops.SignIn{Checked: u.Password, Session: session, Ends: former})
	}
	if !ok || u.Password == "" || errors.Is(err, ops.ErrNotFound) {
		c.ops.Refused(stranger, ops.SignIn{}, u, reason)
		c.log.Info("sign-in refused", "addr", stranger.From, "why", reason)
		return wrong()
	}
	if err != nil {
		return err
	}
	c.logins.Refund(account)
	c.endStreams(func(s *stream) bool { return s.session == former })
	c.setCookie(v, token)
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

func (c *Console) tooMany(v *visit, view signInView, wait time.Duration) error {
	seconds := int(wait/time.Second) + 1
	v.w.Header().Set("Retry-After", strconv.Itoa(seconds))
	view.Problem = "Too many attempts. Try again in " + plural(seconds, "second") + "."
	return c.render(v, http.StatusTooManyRequests, "signin", view)
}

func (c *Console) signOut(v *visit) error {
	if _, err := ops.Do(v.ctx(), c.ops, v.actor, ops.EndSession{Hash: v.session.Hash}); err != nil && !errors.Is(err, ops.ErrNotFound) {
		return err
	}
	c.endStreams(func(s *stream) bool { return s.session == v.session.Hash })
	http.SetCookie(v.w, c.newCookie(v.r, "", -1))
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
