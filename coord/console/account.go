package console

import (
	"encoding/hex"
	"net/http"
	"strings"
)

type sessionView struct {
	ID      string // hex of the first half of the hash: names it, opens nothing
	Agent   string
	Addr    string
	Created stamp
	Seen    stamp
	Here    bool
}

type accountView struct {
	Sessions []sessionView
	Problem  string // with the password form
	URLs     []string
}

func (c *Console) account(v *visit) error { return c.accountPage(v, http.StatusOK, "") }

func (c *Console) accountPage(v *visit, status int, problem string) error {
	list, err := c.backend.Sessions(v.ctx(), v.user.ID)
	if err != nil {
		return err
	}
	view := accountView{Problem: problem, URLs: cleanAll(c.backend.Network(v.ctx()).ServerURLs)}
	now := c.now()
	for _, s := range list {
		if !c.live(s, now) || len(view.Sessions) == 100 {
			continue
		}
		sv := sessionView{
			ID: sessionName(s.ID), Agent: agentText(s.Agent), Addr: addrText(s.Addr),
			Created: c.stamp(s.Created), Seen: c.stamp(s.Seen), Here: s.ID == v.session.ID,
		}
		if sv.Here {
			view.Sessions = append([]sessionView{sv}, view.Sessions...)
		} else {
			view.Sessions = append(view.Sessions, sv)
		}
	}
	return c.render(v, status, "account", view)
}

func sessionName(id Hash) string { return hex.EncodeToString(id[:16]) }

// changePassword asks for the old one: a borrowed browser must not become the
// owner. The attempts count as sign-ins.
func (c *Console) changePassword(v *visit) error {
	f := v.r.PostForm
	old, fresh := f.Get("current"), f.Get("password")
	account := "account " + strings.ToLower(v.user.Name)
	if problem := checkPassword(fresh, v.user.Name); problem != "" {
		return c.accountPage(v, http.StatusUnprocessableEntity, problem)
	}
	if wait, ok := c.logins.take("change "+account, perAccount, c.now()); !ok {
		return c.accountPage(v, http.StatusTooManyRequests, "Too many attempts. Try again in "+plural(int(wait.Seconds())+1, "second")+".")
	}
	_, hash, err := c.backend.Login(v.ctx(), v.user.Name)
	if err != nil {
		return err
	}
	ok, err := c.passwordIs(v.ctx(), cut(old, maxPassword), hash)
	if err != nil {
		return err
	}
	if !ok {
		return c.accountPage(v, http.StatusUnprocessableEntity, "The current password is not right.")
	}
	c.logins.refund("change " + account)
	if hash, err = c.hashPassword(v.ctx(), fresh); err != nil {
		return err
	}
	if err := c.backend.SetPassword(v.ctx(), v.user.ID, hash, v.session.ID); err != nil {
		return err
	}
	c.endStreams(func(s *stream) bool { return s.user == v.user.ID && s.session != v.session.ID })
	// A new token for this browser too, in case the old one had got about.
	if err := c.startSession(v, v.user); err != nil {
		return err
	}
	c.log.Info("password changed", "user", v.user.Name)
	return v.redirect("/account?done=password")
}

func (c *Console) endSession(v *visit) error {
	list, err := c.backend.Sessions(v.ctx(), v.user.ID)
	if err != nil {
		return err
	}
	for _, s := range list {
		if sessionName(s.ID) != v.r.PathValue("id") {
			continue
		}
		if err := c.backend.DeleteSession(v.ctx(), v.user.ID, s.ID); err != nil {
			return err
		}
		c.endStreams(func(st *stream) bool { return st.session == s.ID })
		if s.ID == v.session.ID {
			return v.redirect("/sign-in")
		}
		return v.redirect("/account?done=ended")
	}
	return ErrNotFound
}

func (c *Console) endOtherSessions(v *visit) error {
	if err := c.backend.DeleteOtherSessions(v.ctx(), v.user.ID, v.session.ID); err != nil {
		return err
	}
	c.endStreams(func(s *stream) bool { return s.user == v.user.ID && s.session != v.session.ID })
	return v.redirect("/account?done=others")
}
