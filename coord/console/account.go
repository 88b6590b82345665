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
	With    string // what it began with, "" if that is not known
	Here    bool
}

type accountView struct {
	Sessions []sessionView
	Problem  accountProblems
	Factors  factorsView
	Weak     bool // nothing else can be done before a second factor is set up
	URLs     []string
	Waiting  string // how many people wait for approval, "" for who does not see that
}

// accountProblems is what is wrong with one of the forms.
type accountProblems struct{ Password, Factor, Passkey string }

type factorsView struct {
	TOTP     stamp // since when
	Codes    int
	Demanded bool
	Passkeys []passkeyView
	// NoPasskeys is why none can be made or used on this page, "" if they can.
	NoPasskeys string
	// Other says that a proof is there, and was not shown in this session.
	Other bool
}

func (c *Console) account(v *visit) error {
	return c.accountPage(v, http.StatusOK, accountProblems{})
}

func (c *Console) accountPage(v *visit, status int, problem accountProblems) error {
	list, err := c.ops.Sessions(v.ctx(), v.actor)
	if err != nil {
		return err
	}
	f, err := c.ops.Factors(v.ctx(), v.actor)
	if err != nil {
		return err
	}
	view := accountView{Problem: problem, URLs: cleanAll(c.ops.Network().URLs), Weak: v.actor.Weak, Factors: factorsView{Codes: f.Codes, Demanded: f.Demanded}}
	view.Factors.Passkeys, view.Factors.Other = c.passkeyViews(f.Passkeys), f.Strong()
	_, view.Factors.NoPasskeys = c.passkeySite(v.r)
	if f.TOTP != nil {
		view.Factors.TOTP = c.stamp(*f.TOTP)
	}
	if people, err := c.ops.Identities(v.ctx(), v.actor); err == nil && len(people) > 0 {
		n := 0
		for _, i := range people {
			if i.UserID == "" {
				n++
			}
		}
		view.Waiting = thousands(n)
	}
	now := c.now()
	for _, s := range list {
		if !c.live(s, now) || len(view.Sessions) == 100 {
			continue
		}
		sv := sessionView{
			ID: sessionName(s.Hash), Agent: agentText(s.Agent), Addr: clean(s.Addr),
			Created: c.stamp(s.Created), Seen: c.stamp(s.Seen), Here: s.Hash == v.session.Hash, With: withText(s),
		}
		if sv.Here {
			view.Sessions = append([]sessionView{sv}, view.Sessions...)
		} else {
			view.Sessions = append(view.Sessions, sv)
		}
	}
	return c.render(v, status, "account", view)
}

// withText says what a session began with.
func withText(s store.Session) string {
	var texts []string
	for part := range strings.SplitSeq(string(s.Method), "+") {
		if t := methodTexts[part]; t != "" {
			texts = append(texts, t)
		}
	}
	if len(texts) == 0 {
		return ""
	}
	return "with " + strings.Join(texts, " and ")
}

var methodTexts = map[string]string{
	string(store.WithPassword): "the password", string(store.WithLink): "a link",
	store.AndPasskey: "a passkey", string(store.WithProvider): "another provider",
	store.AndTOTP: "a code", store.AndRecovery: "a recovery code",
}

func sessionName(hash [32]byte) string { return hex.EncodeToString(hash[:16]) }

// changePassword asks for the old one: a borrowed browser must not become the
// owner. The attempts count as sign-ins.
func (c *Console) changePassword(v *visit) error {
	f := v.r.PostForm
	old, fresh := f.Get("current"), f.Get("password")
	if problem := checkPassword(fresh, v.actor.User); problem != "" {
		return c.accountPage(v, http.StatusUnprocessableEntity, accountProblems{Password: problem})
	}
	if left, ok := c.logins.Take("change "+v.actor.UserID, perAccount, c.now()); !ok {
		c.ops.Refused(v.actor, ops.ChangePassword{}, store.User{}, "too many attempts")
		return c.accountPage(v, http.StatusTooManyRequests, accountProblems{Password: tooManyText(v, left.Wait)})
	}
	u, err := c.ops.Login(v.ctx(), v.actor.User)
	if err != nil {
		return err
	}
	ok, err := c.passwordIs(v.ctx(), cut(old, maxPassword), u.Password)
	if errors.Is(err, passhash.ErrNotFIPS) {
		c.ops.Refused(v.actor, ops.ChangePassword{}, store.User{}, "password from before FIPS mode")
		return c.accountPage(v, http.StatusUnprocessableEntity, accountProblems{Password: "The current password was set before this server was in FIPS mode, which does not check it. Ask the owner for a link to set a new one (on the server: weft-server login-link)."})
	}
	if err != nil {
		return err
	}
	if !ok {
		c.ops.Refused(v.actor, ops.ChangePassword{}, store.User{}, "wrong password")
		return c.accountPage(v, http.StatusUnprocessableEntity, accountProblems{Password: "The current password is not right."})
	}
	c.logins.Refund("change " + v.actor.UserID)
	hash, err := c.hashPassword(v.ctx(), fresh)
	if err != nil {
		return err
	}
	tokens, session := c.newSession(v)
	if _, err := ops.Do(v.ctx(), c.ops, v.actor, ops.ChangePassword{Checked: u.Password, Password: hash, Session: session, Ends: v.session.Hash}); err != nil {
		return err
	}
	c.endStreams(func(s *stream) bool { return s.user == v.actor.UserID })
	c.setCookies(v, tokens)
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
