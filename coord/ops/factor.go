package ops

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"weft/coord/store"
	"weft/overlay/fips"
)

// Second factors in addition to a password: a code of an authenticator app (TOTP), which
// changes every 30 seconds, or one of ten recovery codes, each of which works once.

// Errors of signing in that the console distinguishes.
var (
	ErrNeedsCode = errors.New("a code is needed in addition to the password")
	ErrWrongCode = errors.New("that code is wrong, or was used before")
	// ErrWeak means that a person has proved less than the network demands of the role.
	ErrWeak = errors.New("this network demands a passkey, or a code in addition to the password")
)

const recoveryCodes = 10

// Factors are what a user can sign in with.
type Factors struct {
	Password bool            `json:"password"`
	TOTP     *time.Time      `json:"totp"` // when codes were set up, nil for never
	Codes    int             `json:"recovery_codes"`
	Demanded bool            `json:"demanded"` // the network demands a second factor of the user's role
	Passkeys []store.Passkey `json:"-"`

	domain string // for which passkeys are made now
}

// Strong reports whether the user has codes or a passkey.
func (f Factors) Strong() bool { return f.TOTP != nil || f.hasPasskey() }

// hasPasskey reports whether the user has a passkey for the present domain.
func (f Factors) hasPasskey() bool {
	return slices.ContainsFunc(f.Passkeys, func(p store.Passkey) bool { return p.Domain == f.domain })
}

// Factors returns what the actor can sign in with.
func (s *Service) Factors(ctx context.Context, a Actor) (f Factors, err error) {
	if err := opFactorRead.authorize(a, target{kind: "user", owner: a.UserID}); err != nil {
		return f, err
	}
	err = s.store.Read(ctx, func(r *store.Reader) (err error) {
		u, err := r.User(s.network, a.UserID)
		if err == nil {
			f, err = s.factors(r, u)
		}
		return err
	})
	return f, err
}

func (s *Service) factors(r *store.Reader, u store.User) (f Factors, err error) {
	f.Password, f.Demanded = u.Password != "", s.demandsOf(ConsoleActor(u, noAddr).Role)
	t, err := r.TOTP(s.network, u.ID)
	switch {
	case isNotFound(err):
	case err != nil:
		return f, err
	default:
		f.TOTP = &t.Created
	}
	if f.Codes, err = r.RecoveryCodes(s.network, u.ID); err != nil {
		return f, err
	}
	f.domain = s.signIn.Load().PasskeyDomain
	f.Passkeys, err = r.Passkeys(s.network, u.ID)
	return f, err
}

// NeedsCode reports whether a user has to give a code in addition to a password or a link.
func (s *Service) NeedsCode(ctx context.Context, userID string) (needs bool, err error) {
	err = s.store.Read(ctx, func(r *store.Reader) error {
		_, err := r.TOTP(s.network, userID)
		needs = err == nil
		if isNotFound(err) {
			err = nil
		}
		return err
	})
	return needs, err
}

// NewTOTPSecret returns a random secret from which codes are computed, for EnableTOTP.
func NewTOTPSecret() []byte { return newTOTPSecret(fips.Enabled()) }

func newTOTPSecret(approved bool) []byte {
	b := make([]byte, totpSecret)
	if approved {
		b = make([]byte, totpSecret256)
	}
	rand.Read(b)
	return b
}

func totpAbout(userID string) string { return "totp of " + userID }

// EnableTOTP sets up codes for the actor, who has to give one at each sign-in from then on.
type EnableTOTP struct {
	Secret  []byte
	Code    string   // proves that the actor's authenticator app has the secret
	Session [32]byte // hash of the session that does this; it counts as having proved a code
}

func (EnableTOTP) operation() *Operation { return opFactorSet }

// run returns new recovery codes. Only their hashes are stored, so they can be shown only now.
func (c EnableTOTP) run(tx *Tx) ([]string, error) {
	u, err := tx.self()
	if err != nil {
		return nil, err
	}
	before, err := tx.s.factors(&tx.Reader, u)
	if err != nil {
		return nil, err
	}
	if err := tx.mayAddFactor(u); err != nil {
		return nil, err
	}
	session, err := tx.ownSession(u, c.Session)
	if err != nil {
		return nil, err
	}
	step, ok := matchTOTP(fips.Enabled(), c.Secret, digits(c.Code), tx.now, 0)
	if !ok || len(c.Secret) < totpSecret {
		return nil, ErrWrongCode
	}
	sealed, err := tx.s.auth.Seal(totpAbout(u.ID), c.Secret)
	if err != nil {
		return nil, err
	}
	if err := tx.SetTOTP(tx.s.network, u.ID, store.TOTP{Secret: sealed, Step: step, Created: tx.now}); err != nil {
		return nil, err
	}
	if m := session.Method; !m.Strong() {
		if err := tx.SetSessionMethod(tx.s.network, u.ID, session.Hash, m.With(store.AndTOTP)); err != nil {
			return nil, err
		}
	}
	codes, err := tx.newCodes(u)
	if err != nil {
		return nil, err
	}
	tx.did(userTarget(u), before.record(), Factors{TOTP: &tx.now, Passkeys: before.Passkeys}.record())
	return codes, nil
}

// record returns the value for an audit record.
func (f Factors) record() any {
	return struct {
		TOTP     bool `json:"totp"`
		Passkeys int  `json:"passkeys,omitempty"`
	}{f.TOTP != nil, len(f.Passkeys)}
}

// DisableTOTP removes the actor's codes.
type DisableTOTP struct{}

func (DisableTOTP) operation() *Operation { return opFactorSet }

func (DisableTOTP) run(tx *Tx) (none struct{}, err error) {
	u, err := tx.self()
	if err != nil {
		return none, err
	}
	before, err := tx.s.factors(&tx.Reader, u)
	if err != nil || before.TOTP == nil {
		return none, err
	}
	after := before
	if after.TOTP = nil; before.Demanded && !after.Strong() {
		return none, Invalid("this network demands a passkey or codes of everybody with your role: add a passkey first, or set codes up anew")
	}
	if err := tx.DeleteTOTP(tx.s.network, u.ID); err != nil {
		return none, err
	}
	tx.did(userTarget(u), before.record(), after.record())
	return none, nil
}

// NewRecoveryCodes replaces the actor's recovery codes with new ones.
type NewRecoveryCodes struct{}

func (NewRecoveryCodes) operation() *Operation { return opFactorSet }

func (NewRecoveryCodes) run(tx *Tx) ([]string, error) {
	u, err := tx.self()
	if err != nil {
		return nil, err
	}
	if _, err := tx.TOTP(tx.s.network, u.ID); err != nil {
		return nil, fmt.Errorf("recovery codes need codes of an authenticator app: %w", err)
	}
	codes, err := tx.newCodes(u)
	if err != nil {
		return nil, err
	}
	tx.did(userTarget(u), nil, struct {
		Codes int `json:"recovery_codes"`
	}{len(codes)})
	return codes, nil
}

// newCodes makes recovery codes. They have 80 random bits, so that a plain hash of them can be
// stored: trying all codes is infeasible.
func (tx *Tx) newCodes(u store.User) ([]string, error) {
	var codes []string
	var hashes [][32]byte
	for range recoveryCodes {
		var b [10]byte
		rand.Read(b[:])
		t := strings.ToLower(base32Plain.EncodeToString(b[:]))
		codes = append(codes, t[:4]+"-"+t[4:8]+"-"+t[8:12]+"-"+t[12:])
		hashes = append(hashes, hashCode(t))
	}
	return codes, tx.SetRecoveryCodes(tx.s.network, u.ID, hashes)
}

// hashCode returns the hash of a recovery code, which is stored. Case and separators in a typed
// code do not matter.
func hashCode(code string) [32]byte {
	plain := strings.Map(func(r rune) rune {
		switch {
		case r >= 'A' && r <= 'Z':
			return r + 'a' - 'A'
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9':
			return r
		}
		return -1
	}, code)
	return sha256.Sum256([]byte("weft-recovery/1 " + plain))
}

// digits returns a code without the space in the middle with which apps show it.
func digits(code string) string {
	return strings.NewReplacer(" ", "", "-", "").Replace(code)
}

// proveCode checks a user's code, if the user has set up codes, and uses it up. with is what
// the user has proved so far; the result includes the code. For a user without codes it returns
// with, or ErrNeedsPasskey if the network demands a second factor and the user has a passkey.
func (tx *Tx) proveCode(u store.User, with store.Method, code string) (store.Method, error) {
	t, err := tx.TOTP(tx.s.network, u.ID)
	if isNotFound(err) {
		f, err := tx.s.factors(&tx.Reader, u)
		if err == nil && f.Demanded && f.Strong() {
			err = ErrNeedsPasskey
		}
		return with, err
	}
	if err != nil {
		return with, err
	}
	if code == "" {
		return with, ErrNeedsCode
	}
	secret, err := tx.s.auth.Unseal(totpAbout(u.ID), t.Secret)
	if err != nil {
		return with, err
	}
	if step, ok := matchTOTP(fips.Enabled(), secret, digits(code), tx.now, t.Step); ok {
		return with.With(store.AndTOTP), tx.UseTOTP(tx.s.network, u.ID, step)
	}
	err = tx.UseRecoveryCode(tx.s.network, u.ID, hashCode(code))
	if isNotFound(err) {
		err = ErrWrongCode
	}
	return with.With(store.AndRecovery), err
}

// ResetFactors removes the codes and passkeys of a user, by name or id, who has lost them, and
// signs the user out everywhere.
type ResetFactors struct{ User string }

func (ResetFactors) operation() *Operation { return opFactorReset }

func (c ResetFactors) run(tx *Tx) (store.User, error) {
	var u store.User
	var err error
	if tx.actor.UserID != "" { // as in CreateLink: do not reveal whether there is such a user
		err = tx.op.asks(tx.actor)
	}
	if err == nil {
		u, err = tx.UserByName(tx.s.network, c.User)
	}
	if isNotFound(err) {
		u, err = tx.User(tx.s.network, c.User)
	}
	if err == nil {
		err = tx.may(userTarget(u))
	}
	if err != nil {
		tx.asked = true
		return u, About(KindUser, c.User, err)
	}
	before, err := tx.s.factors(&tx.Reader, u)
	if err != nil {
		return u, err
	}
	if err := tx.DeleteTOTP(tx.s.network, u.ID); err != nil {
		return u, err
	}
	if err := tx.DeletePasskeys(tx.s.network, u.ID); err != nil {
		return u, err
	}
	if err := tx.endAll(u); err != nil {
		return u, err
	}
	if err := tx.DeleteSessions(tx.s.network, u.ID, [32]byte{}); err != nil {
		return u, err
	}
	tx.did(userTarget(u), before.record(), Factors{}.record())
	return u, nil
}

// ProveCode adds a code to what a session has proved. It is for people who have signed in at a
// provider, where the network demands a second factor.
type ProveCode struct {
	Code    string
	Session [32]byte
}

func (ProveCode) operation() *Operation { return opFactorProve }

func (c ProveCode) run(tx *Tx) (none struct{}, err error) {
	u, err := tx.self()
	if err != nil {
		return none, err
	}
	session, err := tx.ownSession(u, c.Session)
	if err != nil {
		return none, err
	}
	if _, err := tx.TOTP(tx.s.network, u.ID); err != nil {
		return none, fmt.Errorf("codes: %w", err)
	}
	with, err := tx.proveCode(u, session.Method, cmp.Or(c.Code, " "))
	if err != nil {
		return none, err
	}
	if err := tx.SetSessionMethod(tx.s.network, u.ID, session.Hash, with); err != nil {
		return none, err
	}
	session.Method = with
	tx.did(userTarget(u), nil, browserOf(session))
	return none, nil
}
