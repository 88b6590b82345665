package ops

import (
	"errors"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"weft/coord/store"
	"weft/overlay/fips"
)

// The vectors of RFC 6238, appendix B, of which we show six digits.
func TestTOTPVectors(t *testing.T) {
	secret := []byte("12345678901234567890123456789012")
	totpVectors(t, secret, map[int64]string{59: "119246", 1111111109: "084774", 1111111111: "062674", 1234567890: "819424", 2000000000: "698825", 20000000000: "737706"})
	u, err := url.Parse(TOTPURL(secret, "a", "weft.internal"))
	if err != nil || u.Query().Get("algorithm") != "SHA256" {
		t.Errorf("%v, %v", u, err)
	}
}

func totpVectors(t *testing.T, secret []byte, codes map[int64]string) {
	t.Helper()
	for at, want := range codes {
		if got := totpCode(secret, totpStep(time.Unix(at, 0))); got != want {
			t.Errorf("at %d: %s, want %s", at, got, want)
		}
	}
}

// Outside FIPS mode codes are made as all programs make them. In it those are refused, and
// what is made anew works in both.
func TestTOTPSHA1(t *testing.T) {
	secret := []byte("12345678901234567890")
	totpVectors(t, secret, map[int64]string{59: "287082", 1111111109: "081804", 1111111111: "050471", 1234567890: "005924", 2000000000: "279037", 20000000000: "353130"})
	now := time.Unix(1_800_000_000, 0)
	for _, made := range []bool{false, true} {
		for _, checked := range []bool{false, true} {
			secret := newTOTPSecret(made)
			if _, ok := matchTOTP(checked, secret, totpCode(secret, totpStep(now)), now, 0); ok != (made || !checked) {
				t.Errorf("made in FIPS mode %v, checked in it %v: %v", made, checked, ok)
			}
		}
	}
	u, err := url.Parse(TOTPURL(secret, "a+b@c.example", "weft.internal"))
	if err != nil || u.Scheme != "otpauth" || u.Host != "totp" || u.Path != "/weft:a+b@c.example weft.internal" || u.Query().Get("secret") != TOTPText(secret) || u.Query().Get("issuer") != "weft" || u.Query().Has("algorithm") {
		t.Errorf("%v, %v", u, err)
	}
}

// A clock may be wrong by one step, a code works once, and none of before one that was
// used works any more.
func TestMatchTOTP(t *testing.T) {
	secret, now := NewTOTPSecret(), time.Unix(1_800_000_000, 0)
	here := totpStep(now)
	for skew := int64(-3); skew <= 3; skew++ {
		step, ok := matchTOTP(fips.Enabled(), secret, totpCode(secret, here+skew), now, 0)
		if want := skew >= -1 && skew <= 1; ok != want || ok && step != here+skew {
			t.Errorf("%d steps off: %v %d", skew, ok, step-here)
		}
		if _, ok := matchTOTP(fips.Enabled(), secret, totpCode(secret, here+skew), now, here); ok != (skew == 1) {
			t.Errorf("%d steps off, after one of now: %v", skew, ok)
		}
	}
	for _, code := range []string{"", "000", "abcdef", "0000000", strings.Repeat("1", 1000)} {
		if _, ok := matchTOTP(fips.Enabled(), secret, code, now, 0); ok {
			t.Errorf("%q is a code", code)
		}
	}
}

// person is somebody with a password, a session and codes.
type person struct {
	s      *site
	actor  Actor
	secret []byte
	codes  []string
}

func (s *site) withCodes(a Actor, session string) *person {
	s.t.Helper()
	p := &person{s: s, actor: a, secret: NewTOTPSecret()}
	hash := s.signedIn(a, session)
	got, u, err := s.Session(s.t.Context(), hash)
	if err != nil {
		s.t.Fatal(err)
	}
	p.actor = s.SessionActor(got, u, a.From)
	if p.codes, err = Do(s.t.Context(), s.Service, p.actor, EnableTOTP{Secret: p.secret, Code: p.code(0), Session: hash}); err != nil {
		s.t.Fatal(err)
	}
	return p
}

func (p *person) code(skew int64) string {
	return totpCode(p.secret, totpStep(p.s.clock.Now())+skew)
}

// signIn signs in with the password and a code.
func (p *person) signIn(code, session string) error {
	u, err := p.s.Person(p.s.t.Context(), p.actor.UserID)
	if err == nil {
		_, err = Do(p.s.t.Context(), p.s.Service, ConsoleActor(u, p.actor.From), SignIn{Checked: u.Password, Code: code, Session: NewSession{Hash: HashToken(session)}})
	}
	return err
}

// Whoever has set up codes needs one for each sign-in, with a link too; each works once,
// however many try it at the same time; and neither they nor what makes them is anywhere
// to be read.
func TestCodes(t *testing.T) {
	s := openSite(t)
	owner := s.owner()
	_, before := s.records(0)
	p := s.withCodes(owner, "first")
	first := p.code(0)
	if got, _, err := s.Session(t.Context(), HashToken("first")); err != nil || got.Method != "password+totp" {
		t.Errorf("%+v, %v", got, err)
	}
	if len(p.codes) != recoveryCodes {
		t.Fatalf("%q", p.codes)
	}
	for name, c := range map[string]struct {
		code string
		err  error
	}{
		"none": {"", ErrNeedsCode}, "of the enrolment": {first, ErrWrongCode}, "of before": {p.code(-1), ErrWrongCode}, "wrong": {"nonsense", ErrWrongCode},
	} {
		if err := p.signIn(c.code, "x"); !errors.Is(err, c.err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	s.clock.Add(time.Minute)
	// Of many at once one gets in.
	var wg sync.WaitGroup
	won := make(chan error, 20)
	for i := range 20 {
		wg.Go(func() { won <- p.signIn(" "+p.code(0)[:3]+" "+p.code(0)[3:], string(rune('a'+i))) })
	}
	wg.Wait()
	close(won)
	good := 0
	for err := range won {
		if err == nil {
			good++
		} else if !errors.Is(err, ErrWrongCode) {
			t.Error(err)
		}
	}
	if good != 1 {
		t.Errorf("one code signed in %d times", good)
	}
	// Recovery codes, as people type them.
	if err := p.signIn(strings.ToUpper(strings.ReplaceAll(p.codes[0], "-", " ")), "r"); err != nil {
		t.Error(err)
	}
	if got, _, err := s.Session(t.Context(), HashToken("r")); err != nil || got.Method != "password+recovery" {
		t.Errorf("%+v, %v", got, err)
	}
	if err := p.signIn(p.codes[0], "x"); !errors.Is(err, ErrWrongCode) {
		t.Errorf("a recovery code used twice: %v", err)
	}
	if f, err := s.Factors(t.Context(), p.actor); err != nil || f.Codes != recoveryCodes-1 || f.TOTP == nil {
		t.Errorf("%+v, %v", f, err)
	}
	// A link is no way around, and is not used up by a wrong code.
	path, err := s.LoginLink(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	link := UseLink{Link: HashToken(strings.TrimPrefix(path, "/welcome?link=")), Password: "$argon2id$other", Session: NewSession{Hash: HashToken("l")}}
	for _, code := range []string{"", "000000"} {
		if link.Code = code; code == p.code(0) {
			continue
		}
		if _, err := Do(t.Context(), s.Service, owner, link); !errors.Is(err, ErrNeedsCode) && !errors.Is(err, ErrWrongCode) {
			t.Errorf("a link with %q: %v", code, err)
		}
	}
	link.Code = p.codes[1]
	if _, err := Do(t.Context(), s.Service, owner, link); err != nil {
		t.Error(err)
	}
	// New ones take the place of all others; codes can be turned off, by who has just
	// signed in.
	got, u, err := s.Session(t.Context(), HashToken("l"))
	if err != nil {
		t.Fatal(err)
	}
	a := s.SessionActor(got, u, owner.From)
	fresh, err := Do(t.Context(), s.Service, a, NewRecoveryCodes{})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.signIn(p.codes[2], "x"); !errors.Is(err, ErrWrongCode) {
		t.Errorf("a recovery code that was replaced: %v", err)
	}
	s.clock.Add(FreshFor)
	for name, do := range map[string]func() error{
		"turn off": func() error { _, err := Do(t.Context(), s.Service, a, DisableTOTP{}); return err },
		"new":      func() error { _, err := Do(t.Context(), s.Service, a, NewRecoveryCodes{}); return err },
		"another": func() error {
			_, err := Do(t.Context(), s.Service, a, EnableTOTP{Secret: NewTOTPSecret(), Session: got.Hash})
			return err
		},
	} {
		if err := do(); !errors.Is(err, ErrStale) {
			t.Errorf("%s after a while: %v", name, err)
		}
	}
	if err := p.signIn(p.code(0), "again"); err != nil {
		t.Fatal(err)
	}
	got, u, _ = s.Session(t.Context(), HashToken("again"))
	a = s.SessionActor(got, u, owner.From)
	if _, err := Do(t.Context(), s.Service, a, EnableTOTP{Secret: NewTOTPSecret(), Code: "000000", Session: got.Hash}); !errors.Is(err, ErrWrongCode) {
		t.Errorf("a secret that nothing shows codes of: %v", err)
	}
	if _, err := Do(t.Context(), s.Service, a, DisableTOTP{}); err != nil {
		t.Error(err)
	}
	if err := p.signIn("", "plain"); err != nil {
		t.Errorf("without codes: %v", err)
	}
	if err := p.signIn(fresh[0], "x2"); err != nil {
		t.Errorf("a code that nobody asks for is in the way: %v", err)
	}
	// The canary: nothing of it in the audit, the log or, but sealed or hashed, the database.
	lines, _ := s.records(before)
	everything := strings.Join(lines, "\n") + s.log.String()
	for _, secret := range append(append(p.codes, fresh...), TOTPText(p.secret), string(p.secret), b64(p.secret), first) {
		if strings.Contains(everything, secret) {
			t.Errorf("%q is in the audit or the log", secret)
		}
	}
	if !strings.Contains(everything, `factor.set user admin by admin via console: {"totp":false} -> {"totp":true}`) {
		t.Errorf("recorded\n%s", strings.Join(lines, "\n"))
	}
}

// Whoever has lost the second factor gets rid of it by whoever has the server, and nobody
// else.
func TestResetFactors(t *testing.T) {
	s := openSite(t)
	p := s.withCodes(s.member("bob"), "bob's")
	for _, a := range []Actor{p.actor, {Role: RoleAdmin, UserID: "x", Via: ViaAPI}, {Role: RoleMember, UserID: p.actor.UserID, Via: ViaConsole, SignedIn: s.clock.Now()}} {
		if _, err := Do(t.Context(), s.Service, a, ResetFactors{"bob"}); !errors.Is(err, ErrForbidden) {
			t.Errorf("%s: %v", a.Role, err)
		}
	}
	if _, err := Do(t.Context(), s.Service, Root(), ResetFactors{"nobody"}); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
	if _, err := Do(t.Context(), s.Service, Root(), ResetFactors{"bob"}); err != nil {
		t.Fatal(err)
	}
	s.wantLive("reset", nil, "bob's")
	if err := p.signIn("", "plain"); err != nil {
		t.Error(err)
	}
}

// What the network demands of a role is demanded by the service, of sessions that are
// there too, and whoever has none can set one up and nothing else.
func TestDemanded(t *testing.T) {
	s := openSite(t)
	owner, bob := s.owner(), s.member("bob")
	s.signedIn(owner, "o")
	s.signedIn(bob, "b")
	yes, no := true, false
	if _, err := Do(t.Context(), s.Service, Root(), SetSignIn{Demanded: &yes}); err != nil {
		t.Fatal(err)
	}
	as := func(token string) Actor {
		t.Helper()
		session, u, err := s.Session(t.Context(), HashToken(token))
		if err != nil {
			t.Fatal(err)
		}
		return s.SessionActor(session, u, owner.From)
	}
	if as("b").Weak || !as("o").Weak {
		t.Error("it is demanded of the owner, and of no member")
	}
	for _, o := range Operations {
		if err := o.authorize(as("o"), target{owner: owner.UserID}); errors.Is(err, ErrWeak) == o.weak {
			t.Errorf("%s of the owner with a password only: %v", o.Name, err)
		}
	}
	if _, err := s.Devices(t.Context(), as("o"), DeviceQuery{}); !errors.Is(err, ErrWeak) {
		t.Errorf("the devices: %v", err)
	}
	if _, err := Do(t.Context(), s.Service, as("o"), SetSignIn{Demanded: &no}); !errors.Is(err, ErrWeak) {
		t.Errorf("turning it off: %v", err)
	}
	secret := NewTOTPSecret()
	if _, err := Do(t.Context(), s.Service, as("o"), EnableTOTP{Secret: secret, Code: totpCode(secret, totpStep(s.clock.Now())), Session: HashToken("o")}); err != nil {
		t.Fatal(err)
	}
	if as("o").Weak {
		t.Error("with codes the session is as good as is demanded")
	}
	if _, err := Do(t.Context(), s.Service, as("o"), DisableTOTP{}); !errors.Is(err, ErrInvalid) {
		t.Errorf("turning off what is demanded: %v", err)
	}
	if info, err := s.SignInSettings(as("b")); err != nil || info != (store.SignIn{Demanded: true}) {
		t.Errorf("%+v, %v", info, err)
	}
	// It is there after a restart.
	s.Close()
	again := openSite(t, func(o *Options) { o.Data, o.Create = s.data, false })
	if !again.demandsOf(RoleOperator) || again.demandsOf(RoleAuditor) {
		t.Error("forgotten")
	}
}
