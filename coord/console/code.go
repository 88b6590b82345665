package console

import (
	"crypto/subtle"
	"errors"
	"net/http"
	"time"

	"weft/coord/ops"
	"weft/coord/ratelimit"
	"weft/coord/store"
	"weft/overlay/fips"
)

// codeTime is how long somebody has from the password to the code.
const codeTime = 5 * time.Minute

// Attempts at codes: whoever makes them has the password by then, or a link. Six digits
// of which three are right at a time are 1,000 days of guessing for an even chance.
var (
	codesPerBrowser = ratelimit.Limit{Burst: 5, Per: 15 * time.Minute}
	codesPerAccount = ratelimit.Limit{Burst: 5, Per: 15 * time.Minute}
)

// proved is what somebody has shown who is asked for a code.
type proved struct {
	UserID  string
	Checked [32]byte // HashToken of the hash that the password was checked against
	Next    string
}

type codeView struct {
	Proved, Problem string
}

// askCode asks for a code beside the password.
func (c *Console) askCode(v *visit, u store.User, next string) error {
	sealed, err := c.box.put("code", c.now().Add(codeTime), proved{u.ID, ops.HashToken(u.Password), next})
	if err != nil {
		return err
	}
	return c.render(v, http.StatusOK, "code", codeView{Proved: sealed})
}

// signInWithCode is the second step of signing in with a password.
func (c *Console) signInWithCode(v *visit) error {
	sealed, code := v.r.PostForm.Get("proved"), cut(v.r.PostForm.Get("code"), 64)
	var p proved
	if !c.box.take("code", sealed, c.now(), &p) {
		return c.signInForm(v, http.StatusUnprocessableEntity, signInView{Problem: "That took too long, or the server was started anew. Sign in from the beginning."})
	}
	problem := func(status int, text string) error {
		return c.render(v, status, "code", codeView{Proved: sealed, Problem: text})
	}
	u, err := c.ops.Person(v.ctx(), p.UserID)
	if err != nil && !errors.Is(err, ops.ErrNotFound) {
		return err
	}
	if checked := ops.HashToken(u.Password); err != nil || subtle.ConstantTimeCompare(checked[:], p.Checked[:]) != 1 {
		return c.signInForm(v, http.StatusUnprocessableEntity, signInView{Problem: "The password was changed meanwhile. Sign in from the beginning.", Next: p.Next})
	}
	if code == "" {
		return problem(http.StatusUnprocessableEntity, "Type the code.")
	}
	stranger := ops.Actor{Via: ops.ViaConsole, From: c.clientAddr(v.r)}
	try, wait, err := c.attemptCode(v, u)
	if err != nil {
		return err
	}
	if wait > 0 {
		c.ops.Refused(stranger, ops.SignIn{}, u, "too many codes")
		return problem(http.StatusTooManyRequests, tooManyText(v, wait))
	}
	former := c.formerSession(v)
	tokens, session := c.newSession(v)
	_, err = ops.Do(v.ctx(), c.ops, ops.ConsoleActor(u, stranger.From), ops.SignIn{Checked: u.Password, Code: code, Session: session, Ends: former})
	if errors.Is(err, ops.ErrWrongCode) {
		c.ops.Refused(stranger, ops.SignIn{}, u, "wrong code")
		return problem(http.StatusUnprocessableEntity, wrongCodeText())
	}
	if err != nil {
		return err
	}
	try.refund()
	c.signedIn(v, tokens, former)
	return v.redirect(orHome(p.Next))
}

// wrongCodeText is what a refused code says. In FIPS mode it says to everybody that codes
// from before are refused, so that it does not tell who has such.
func wrongCodeText() string {
	text := "That code is not right, or was used before. Each works once; take the next."
	if fips.Enabled() {
		text += " This server is in FIPS mode and does not accept codes that were set up before: use a recovery code, then set codes up anew."
	}
	return text
}

// attemptCode uses one attempt at a code of u.
func (c *Console) attemptCode(v *visit, u store.User) (a *attempt, wait time.Duration, err error) {
	a = &attempt{limiter: c.logins}
	name, l := "code account "+u.ID, codesPerAccount
	if token := c.token(v.r, knownCookie); token != "" {
		hash := ops.HashToken(token)
		if a.known, err = c.ops.KnownBrowser(v.ctx(), u.ID, hash); err != nil {
			return a, 0, err
		}
		if a.known {
			name, l = "code browser "+u.ID+" "+string(hash[:]), codesPerBrowser
		}
	}
	wait, _ = a.take(name, l, c.now())
	return a, wait, nil
}
