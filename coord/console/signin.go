package console

import (
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"
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
	if errors.Is(err, ErrNotFound) {
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
	u, err := c.linkUser(v, link)
	if err == nil {
		if problem := checkPassword(password, u.Name); problem != "" {
			return c.render(v, http.StatusUnprocessableEntity, "welcome", welcomeView{Link: link, Name: clean(u.Name), Problem: problem})
		}
		var hash string
		if hash, err = c.hashPassword(v.ctx(), password); err != nil {
			return err
		}
		u, err = c.backend.UseLink(v.ctx(), HashToken(link), hash)
	}
	if errors.Is(err, ErrNotFound) {
		return c.render(v, http.StatusGone, "welcome", welcomeView{Gone: true})
	}
	if err != nil {
		return err
	}
	c.endStreams(func(s *stream) bool { return s.user == u.ID })
	if err := c.startSession(v, u); err != nil {
		return err
	}
	c.log.Info("signed in with a one-time link", "user", u.Name, "addr", c.clientAddr(v.r))
	return v.redirect("/devices")
}

func (c *Console) linkUser(v *visit, link string) (User, error) {
	if len(link) < 20 || len(link) > 200 {
		return User{}, ErrNotFound
	}
	return c.backend.Link(v.ctx(), HashToken(link))
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
	wrong := func() error {
		view.Problem = "That name and password do not match."
		return c.render(v, http.StatusUnprocessableEntity, "signin", view)
	}
	if name == "" || len(name) > 64 || password == "" || len(password) > maxPassword {
		return wrong()
	}

	account := "account " + strings.ToLower(name)
	now := c.now()
	// Behind a proxy that is not trusted to name its clients, all of them
	// come from loopback: there only the limit per account holds.
	if addr := c.clientAddr(v.r); addr.IsValid() && !addr.IsLoopback() {
		if addr.Is6() {
			if p, err := addr.Prefix(64); err == nil {
				addr = p.Addr()
			}
		}
		if wait, ok := c.logins.take("addr "+addr.String(), perAddr, now); !ok {
			return c.tooMany(v, view, wait)
		}
	}
	if wait, ok := c.logins.take(account, perAccount, now); !ok {
		return c.tooMany(v, view, wait)
	}

	u, hash, err := c.backend.Login(v.ctx(), name)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return err
	}
	ok, err := c.passwordIs(v.ctx(), password, hash)
	if err != nil {
		return err
	}
	if !ok || hash == "" {
		c.log.Info("sign-in refused", "addr", c.clientAddr(v.r))
		return wrong()
	}
	c.logins.refund(account)
	if err := c.startSession(v, u); err != nil {
		return err
	}
	c.log.Info("signed in", "user", u.Name, "addr", c.clientAddr(v.r))
	return v.redirect(orHome(view.Next))
}

func (c *Console) tooMany(v *visit, view signInView, wait time.Duration) error {
	seconds := int(wait/time.Second) + 1
	v.w.Header().Set("Retry-After", strconv.Itoa(seconds))
	view.Problem = "Too many attempts. Try again in " + plural(seconds, "second") + "."
	return c.render(v, http.StatusTooManyRequests, "signin", view)
}

func (c *Console) signOut(v *visit) error {
	if err := c.backend.DeleteSession(v.ctx(), v.user.ID, v.session.ID); err != nil && !errors.Is(err, ErrNotFound) {
		return err
	}
	c.endStreams(func(s *stream) bool { return s.session == v.session.ID })
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
