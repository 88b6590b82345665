package console

import (
	"encoding/hex"
	"errors"
	"net/http"
	"strings"

	"weft/coord/ops"
	"weft/coord/passhash"
	"weft/coord/store"
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
	list, err := c.ops.Sessions(v.ctx(), v.actor)
	if err != nil {
		return err
	}
	view := accountView{Problem: problem, URLs: cleanAll(c.ops.Network().URLs)}
	now := c.now()
	for _, s := range list {
		if !c.live(s, now) || len(view.Sessions) == 100 {
			continue
		}
		sv := sessionView{
			ID: sessionName(s.Hash), Agent: agentText(s.Agent), Addr: clean(s.Addr),
			Created: c.stamp(s.Created), Seen: c.stamp(s.Seen), Here: s.Hash == v.session.Hash,
		}
		if sv.Here {
			view.Sessions = append([]sessionView{sv}, view.Sessions...)
		} else {
			view.Sessions = append(view.Sessions, sv)
		}
	}
	return c.render(v, status, "account", view)
}

func sessionName(hash [32]byte) string { return hex.EncodeToString(hash[:16]) }

// changePassword asks for the old one: a borrowed browser must not become the
// owner. The attempts count as sign-ins.
func (c *Console) changePassword(v *visit) error {
	f := v.r.PostForm
	old, fresh := f.Get("current"), f.Get("password")
	account := "account " + strings.ToLower(v.actor.User)
	if problem := checkPassword(fresh, v.actor.User); problem != "" {
		return c.accountPage(v, http.StatusUnprocessableEntity, problem)
	}
	if left, ok := c.logins.Take("change "+account, perAccount, c.now()); !ok {
		c.ops.Refused(v.actor, ops.ChangePassword{}, store.User{}, "too many attempts")
		return c.accountPage(v, http.StatusTooManyRequests, "Too many attempts. Try again in "+plural(int(left.Wait.Seconds())+1, "second")+".")
	}
	u, err := c.ops.Login(v.ctx(), v.actor.User)
	if err != nil {
		return err
	}
	ok, err := c.passwordIs(v.ctx(), cut(old, maxPassword), u.Password)
	if errors.Is(err, passhash.ErrNotFIPS) {
		c.ops.Refused(v.actor, ops.ChangePassword{}, store.User{}, "password from before FIPS mode")
		return c.accountPage(v, http.StatusUnprocessableEntity, "The current password was set before this server was in FIPS mode, which does not check it. Ask the owner for a link to set a new one (on the server: weft-server login-link).")
	}
	if err != nil {
		return err
	}
	if !ok {
		c.ops.Refused(v.actor, ops.ChangePassword{}, store.User{}, "wrong password")
		return c.accountPage(v, http.StatusUnprocessableEntity, "The current password is not right.")
	}
	c.logins.Refund("change " + account)
	hash, err := c.hashPassword(v.ctx(), fresh)
	if err != nil {
		return err
	}
	token, session := c.newSession(v)
	if _, err := ops.Do(v.ctx(), c.ops, v.actor, ops.ChangePassword{Checked: u.Password, Password: hash, Session: session}); err != nil {
		return err
	}
	c.endStreams(func(s *stream) bool { return s.user == v.actor.UserID })
	c.setCookie(v, token)
	return v.redirect("/account?done=password")
}

func (c *Console) endSession(v *visit) error {
	list, err := c.ops.Sessions(v.ctx(), v.actor)
	if err != nil {
		return err
	}
	for _, s := range list {
		if sessionName(s.Hash) != v.r.PathValue("id") {
			continue
		}
		if _, err := ops.Do(v.ctx(), c.ops, v.actor, ops.EndSession{Hash: s.Hash}); err != nil {
			return err
		}
		c.endStreams(func(st *stream) bool { return st.session == s.Hash })
		if s.Hash == v.session.Hash {
			return v.redirect("/sign-in")
		}
		return v.redirect("/account?done=ended")
	}
	return ops.ErrNotFound
}

func (c *Console) endOtherSessions(v *visit) error {
	if _, err := ops.Do(v.ctx(), c.ops, v.actor, ops.EndOtherSessions{Keep: v.session.Hash}); err != nil {
		return err
	}
	c.endStreams(func(s *stream) bool { return s.user == v.actor.UserID && s.session != v.session.Hash })
	return v.redirect("/account?done=others")
}
