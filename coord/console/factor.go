package console

import (
	"errors"
	"html/template"
	"net/http"
	"time"

	"weft/coord/ops"
)

// enrolTime is how long somebody has to scan a code and type what it shows.
const enrolTime = 15 * time.Minute

// enrolment is a secret on its way into a program for codes.
type enrolment struct {
	UserID string
	Secret []byte
}

type totpView struct {
	Enrolment, Problem string
	QR                 template.HTML
	Text, URL          string
	Again              bool // there was one before
	SHA256             bool // a program that the text is typed into has to be told
}

type codesView struct{ Codes []string }

// setUpTOTP shows a secret as a QR code. Reloading shows another one, and none is kept.
func (c *Console) setUpTOTP(v *visit) error {
	if err := c.ops.CheckFresh(v.actor, ops.EnableTOTP{}); err != nil {
		return err
	}
	return c.totpPage(v, http.StatusOK, enrolment{v.actor.UserID, ops.NewTOTPSecret()}, "")
}

func (c *Console) totpPage(v *visit, status int, e enrolment, problem string) error {
	f, err := c.ops.Factors(v.ctx(), v.actor)
	if err != nil {
		return err
	}
	view := totpView{Problem: problem, Again: f.TOTP != nil, SHA256: ops.TOTPSHA256(e.Secret), Text: ops.TOTPText(e.Secret), URL: ops.TOTPURL(e.Secret, v.actor.User, c.ops.Network().Suffix)}
	if view.Enrolment, err = c.box.put("enrolment", c.now().Add(enrolTime), e); err != nil {
		return err
	}
	if view.QR, err = qrSVG(view.URL, "QR code for a program that shows codes"); err != nil {
		c.log.Warn("draw QR code", "err", err)
	}
	return c.render(v, status, "totp", view)
}

// enableTOTP wants a code of the secret, and shows recovery codes this once.
func (c *Console) enableTOTP(v *visit) error {
	var e enrolment
	if !c.box.take("enrolment", v.r.PostForm.Get("enrolment"), c.now(), &e) || e.UserID != v.actor.UserID {
		return v.redirect("/account/codes/set-up")
	}
	codes, err := ops.Do(v.ctx(), c.ops, v.actor, ops.EnableTOTP{Secret: e.Secret, Code: cut(v.r.PostForm.Get("code"), 64), Session: v.session.Hash})
	if errors.Is(err, ops.ErrWrongCode) {
		return c.totpPage(v, http.StatusUnprocessableEntity, e, "That is not the code that this secret makes now. If it is what your program shows, its clock is wrong, or the server's.")
	}
	if err != nil {
		return err
	}
	return c.render(v, http.StatusOK, "codes", codesView{codes})
}

func (c *Console) disableTOTP(v *visit) error {
	if _, err := ops.Do(v.ctx(), c.ops, v.actor, ops.DisableTOTP{}); errors.Is(err, ops.ErrInvalid) {
		return c.accountPage(v, http.StatusUnprocessableEntity, accountProblems{Factor: "This network demands a passkey or codes of everybody with your role. Set codes up anew instead."})
	} else if err != nil {
		return err
	}
	return v.redirect("/account?done=codesoff")
}

// newCodes shows new recovery codes this once.
func (c *Console) newCodes(v *visit) error {
	codes, err := ops.Do(v.ctx(), c.ops, v.actor, ops.NewRecoveryCodes{})
	if err != nil {
		return err
	}
	return c.render(v, http.StatusOK, "codes", codesView{codes})
}
