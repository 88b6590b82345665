package console

import (
	"crypto/sha256"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"weft/coord/ops"
	"weft/coord/passkey"
	"weft/coord/store"
)

// passkeyTime is how long somebody has to show a passkey, or to make one.
const passkeyTime = 5 * time.Minute

// passkeySite is where passkeys can be made and used from the page of a request, or why
// they cannot.
func (c *Console) passkeySite(r *http.Request) (s passkey.Site, why string) {
	host, _, err := net.SplitHostPort(r.Host)
	if err != nil {
		host = r.Host
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	domain := c.ops.PasskeyDomain()
	_, isAddr := netip.ParseAddr(strings.Trim(host, "[]"))
	switch {
	case isAddr == nil || host == "localhost" || strings.HasSuffix(host, ".localhost"):
		return s, "Passkeys need a name in DNS, and this page was opened by an address. Start the server with --domain, or behind a reverse proxy that has a name."
	case !c.secure(r):
		return s, "Passkeys need TLS, and this page came without. Open it by https."
	case c.trustedSite == nil || !c.trustedSite(r):
		return s, "Passkeys need a certificate that browsers trust, and this server made its own. Start it with --domain, or behind a reverse proxy that has one."
	case domain != "" && host != domain && !strings.HasSuffix(host, "."+domain):
		return s, "Passkeys of this network are for " + domain + ", and this page is not at a name of it."
	case domain == "":
		domain = host
	}
	return passkey.Site{Domain: domain, Origin: "https://" + strings.ToLower(r.Host)}, ""
}

// challenge is what a passkey signs: sealed, so that none has to be kept.
type challenge struct {
	UserID  string   // "" to sign in
	Session [32]byte // where a passkey is made, or the hash of the invitation for which it is
}

func (c *Console) newChallenge(purpose string, ch challenge) ([]byte, error) {
	s, err := c.box.put(purpose, c.now().Add(passkeyTime), ch)
	return []byte(s), err
}

// passkeySignInOptions is what a page asks before it has a passkey sign something.
func (c *Console) passkeySignInOptions(v *visit) error {
	site, why := c.passkeySite(v.r)
	if why != "" {
		return ops.ErrNotFound
	}
	ch, err := c.newChallenge("passkey sign-in", challenge{})
	if err != nil {
		return err
	}
	options, err := site.GetOptions(ch)
	return c.sendOptions(v, options, err)
}

// newPasskeyOptions is what a page asks before it has a passkey made.
func (c *Console) newPasskeyOptions(v *visit) error {
	site, why := c.passkeySite(v.r)
	if why != "" {
		return ops.ErrNotFound
	}
	if err := c.ops.CheckFresh(v.actor, ops.AddPasskey{}); err != nil {
		return err
	}
	f, err := c.ops.Factors(v.ctx(), v.actor)
	if err != nil {
		return err
	}
	var have [][]byte
	for _, p := range f.Passkeys {
		have = append(have, p.Credential)
	}
	ch, err := c.newChallenge("passkey", challenge{v.actor.UserID, v.session.Hash})
	if err != nil {
		return err
	}
	options, err := site.CreateOptions(ch, v.actor.UserID, v.actor.User, have)
	return c.sendOptions(v, options, err)
}

func (c *Console) sendOptions(v *visit, options []byte, err error) error {
	if err != nil {
		return err
	}
	v.w.Header().Set("Content-Type", "application/json")
	v.w.Write(options)
	return nil
}

// addPasskey takes the passkey that a page had made.
func (c *Console) addPasskey(v *visit) error {
	failed := func(text string) error {
		return c.accountPage(v, http.StatusUnprocessableEntity, accountProblems{Passkey: text})
	}
	made, problem := c.passkeyOf(v, v.r.PostForm.Get("response"), challenge{v.actor.UserID, v.session.Hash})
	if problem != "" {
		return failed(problem)
	}
	_, err := ops.Do(v.ctx(), c.ops, v.actor, *made)
	switch {
	case errors.Is(err, ops.ErrTaken):
		return failed("That passkey is here already.")
	case errors.Is(err, ops.ErrInvalid):
		return failed(err.Error() + ".")
	case err != nil:
		return err
	}
	return v.redirect("/account?done=passkey")
}

// passkeyOf is the passkey that a page had made for a challenge, or what is wrong with it.
func (c *Console) passkeyOf(v *visit, response string, want challenge) (*ops.AddPasskey, string) {
	site, why := c.passkeySite(v.r)
	if why != "" {
		return nil, why
	}
	signed, err := passkey.ChallengeOf([]byte(response))
	var ch challenge
	if err != nil || !c.box.take("passkey", string(signed), c.now(), &ch) || ch != want {
		return nil, "That took too long. Try again."
	}
	key, err := site.Created(signed, want.UserID, []byte(response))
	if err != nil {
		c.log.Info("passkey refused", "user", want.UserID, "err", err)
		return nil, "The browser made no passkey that can be used here."
	}
	name := strings.TrimSpace(v.r.PostForm.Get("name"))
	if name == "" {
		name = agentText(v.r.UserAgent())
	}
	return &ops.AddPasskey{Key: key, Domain: site.Domain, Name: name, Session: want.Session}, ""
}

// invitedPasskeyOptions is newPasskeyOptions for somebody who was invited.
func (c *Console) invitedPasskeyOptions(v *visit) error {
	site, why := c.passkeySite(v.r)
	if why != "" {
		return ops.ErrNotFound
	}
	link := v.r.URL.Query().Get("link")
	l, err := c.link(v, link)
	if err != nil || !l.Invites {
		return ops.ErrNotFound
	}
	ch, err := c.newChallenge("passkey", challenge{l.User.ID, ops.HashToken(link)})
	if err != nil {
		return err
	}
	options, err := site.CreateOptions(ch, l.User.ID, l.User.Name, nil)
	return c.sendOptions(v, options, err)
}

func (c *Console) removePasskey(v *visit) error {
	id, err := v.pathID()
	if err != nil {
		return err
	}
	_, err = ops.Do(v.ctx(), c.ops, v.actor, ops.RemovePasskey{ID: id})
	if errors.Is(err, ops.ErrInvalid) {
		return c.accountPage(v, http.StatusUnprocessableEntity, accountProblems{Passkey: "This network demands a passkey or codes of everybody with your role. Add another one first."})
	}
	if err != nil {
		return err
	}
	return v.redirect("/account?done=nopasskey")
}

// signInWithPasskey takes what a passkey signed. Nobody has typed a name: the passkey
// says whose it is.
func (c *Console) signInWithPasskey(v *visit) error {
	stranger := ops.Actor{Via: ops.ViaConsole, From: c.clientAddr(v.r)}
	view := signInView{Next: localPath(v.r.PostForm.Get("next"))}
	failed := func(u store.User, text, why string) error {
		c.ops.Refused(stranger, ops.SignInWithPasskey{}, u, why)
		view.Problem = text
		return c.signInForm(v, http.StatusUnprocessableEntity, view)
	}
	site, why := c.passkeySite(v.r)
	if why != "" {
		return failed(store.User{}, why, "no passkeys here")
	}
	response := []byte(v.r.PostForm.Get("response"))
	signed, err := passkey.ChallengeOf(response)
	var ch challenge
	if err != nil || !c.box.take("passkey sign-in", string(signed), c.now(), &ch) {
		return failed(store.User{}, "That took too long, or the server was started anew. Try again.", "no challenge of ours")
	}
	var person store.User
	proof, err := site.Proved(signed, response, func(id []byte, userID string) (passkey.Key, error) {
		p, u, err := c.ops.FindPasskey(v.ctx(), id, userID)
		person = u
		return passkey.Key{ID: p.Credential, PublicKey: p.PublicKey, AAGUID: p.AAGUID, Transport: p.Transport, Flags: p.Flags, Counter: p.Counter}, err
	})
	if errors.Is(err, passkey.ErrUnknown) {
		return failed(person, "This passkey is not known here. It may have been removed.", "unknown passkey")
	}
	if err != nil {
		c.log.Info("passkey refused", "user", person.Name, "addr", stranger.From, "err", err)
		return failed(person, "This passkey did not prove who you are.", "wrong passkey")
	}
	if !c.useOnce(signed) {
		return failed(person, "That was used before. Try again.", "passkey replayed")
	}
	former := c.formerSession(v)
	tokens, session := c.newSession(v)
	_, err = ops.Do(v.ctx(), c.ops, ops.ConsoleActor(person, stranger.From), ops.SignInWithPasskey{Proof: proof, Session: session, Ends: former})
	if errors.Is(err, ops.ErrNotFound) {
		return failed(person, "This passkey is not known here. It may have been removed.", "unknown passkey")
	}
	if err != nil {
		return err
	}
	c.signedIn(v, tokens, former)
	return v.redirect(orHome(view.Next))
}

// useOnce reports whether what was sealed was not used before. Only what proved somebody
// gets here, so strangers make it no larger; and it forgets what has ended by itself.
func (c *Console) useOnce(sealed []byte) bool {
	hash, now := sha256.Sum256(sealed), c.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	for h, until := range c.used {
		if now.After(until) {
			delete(c.used, h)
		}
	}
	if _, ok := c.used[hash]; ok {
		return false
	}
	c.used[hash] = now.Add(passkeyTime)
	return true
}

// passkeyView is one on the account page.
type passkeyView struct {
	ID, Name      string
	Created, Used stamp
	Cloned        stamp  // the zero value for never
	Elsewhere     string // the domain that it is for, when that is not where passkeys are for now
}

func (c *Console) passkeyViews(list []store.Passkey) (views []passkeyView) {
	domain := c.ops.PasskeyDomain()
	for _, p := range list {
		pv := passkeyView{ID: p.ID, Name: clean(p.Name), Created: c.stamp(p.Created), Used: c.stamp(p.Used)}
		if !p.Cloned.IsZero() {
			pv.Cloned = c.stamp(p.Cloned)
		}
		if p.Domain != domain {
			pv.Elsewhere = clean(p.Domain)
		}
		views = append(views, pv)
	}
	return views
}
