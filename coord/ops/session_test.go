package ops

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"weft/coord/audit"
	"weft/coord/store"
)

// signIn signs an actor in, with the password that it has by then.
func (s *site) signIn(a Actor, token string) error {
	var u store.User
	err := s.store.Read(context.Background(), func(r *store.Reader) (err error) { u, err = r.User(s.network, a.UserID); return err })
	if err == nil && u.Password == "" {
		u.Password = "$argon2id$first"
		err = s.store.Write(context.Background(), func(tx *store.Tx) error { return tx.SetPassword(s.network, u.ID, u.Password, [32]byte{}) })
	}
	if err == nil {
		_, err = Do(context.Background(), s.Service, a, SignIn{Checked: u.Password, Session: NewSession{Hash: HashToken(token), Agent: "a\x1b[31mb"}})
	}
	return err
}

func (s *site) signedIn(a Actor, token string) [32]byte {
	s.t.Helper()
	if err := s.signIn(a, token); err != nil {
		s.t.Fatal(err)
	}
	return HashToken(token)
}

// live says which of these tokens open a session.
func (s *site) live(tokens ...string) (live []string) {
	for _, token := range tokens {
		if _, _, err := s.Session(context.Background(), HashToken(token)); err == nil {
			live = append(live, token)
		} else if !errors.Is(err, ErrNotFound) {
			s.t.Error(err)
		}
	}
	return live
}

func (s *site) wantLive(when string, want []string, tokens ...string) {
	s.t.Helper()
	if live := s.live(tokens...); !slices.Equal(live, want) {
		s.t.Errorf("%s: sessions %q, want %q", when, live, want)
	}
}

// One link signs in once, however many use it at once; it sets the password and ends
// every other session and link.
func TestUseLink(t *testing.T) {
	s := openSite(t)
	link := func() [32]byte {
		t.Helper()
		path, err := s.LoginLink(t.Context(), "")
		if err != nil {
			t.Fatal(err)
		}
		return HashToken(strings.TrimPrefix(path, "/welcome?link="))
	}
	first := link()
	l, err := s.Link(t.Context(), first, [32]byte{})
	if u := l.User; err != nil || l.Invites || u.Name != "admin" {
		t.Fatalf("%+v, %v", l, err)
	}
	owner := s.owner()
	old := s.signedIn(owner, "old")
	first, second := link(), link() // giving a password ended the other
	if got, _, err := s.Session(t.Context(), old); err != nil || got.Addr != owner.From.String() || !got.Created.Equal(s.clock.Now()) || got.Agent != "a[31mb" {
		t.Errorf("%+v, %v", got, err)
	}
	var ok atomic.Int32
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			_, err := Do(t.Context(), s.Service, owner, UseLink{Link: first, Password: "$argon2id$x", Session: NewSession{Hash: HashToken(fmt.Sprint(i))}})
			if err == nil {
				ok.Add(1)
			} else if !errors.Is(err, ErrNotFound) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if ok.Load() != 1 {
		t.Errorf("%d uses of one link", ok.Load())
	}
	if list, err := s.Sessions(t.Context(), owner); err != nil || len(list) != 1 || list[0].Hash == old {
		t.Errorf("sessions %+v, %v", list, err)
	}
	if _, err := s.Link(t.Context(), second, [32]byte{}); !errors.Is(err, ErrNotFound) {
		t.Errorf("an old link lives: %v", err)
	}
	if u, err := s.Login(t.Context(), "admin"); err != nil || u.Password != "$argon2id$x" {
		t.Errorf("%q, %v", u.Password, err)
	}
	if _, err := s.Login(t.Context(), "nobody"); !errors.Is(err, ErrNotFound) {
		t.Errorf("nobody: %v", err)
	}
	expired := link()
	if _, err := Do(t.Context(), s.Service, s.member("bob"), UseLink{Link: expired, Password: "x"}); !errors.Is(err, ErrNotFound) {
		t.Errorf("another's link: %v", err)
	}
	s.clock.Add(LinkLife)
	if _, err := Do(t.Context(), s.Service, owner, UseLink{Link: expired, Password: "x"}); !errors.Is(err, ErrNotFound) {
		t.Errorf("an expired link: %v", err)
	}
}

// Sessions begin and end, each leaves a record, and none has anything in it that opens
// something.
func TestSessions(t *testing.T) {
	s := openSite(t)
	owner, bob := s.owner(), s.member("bob")
	_, before := s.records(0)
	s.signedIn(owner, "one")
	s.signedIn(owner, "two")
	s.signedIn(bob, "bob's")
	all := []string{"one", "two", "bob's", "three", "four"}
	s.wantLive("signed in", []string{"one", "two", "bob's"}, all...)

	do := func(a Actor, c Command[struct{}]) error { _, err := Do(t.Context(), s.Service, a, c); return err }
	// A browser that signs in as somebody else loses the session that it had.
	u, err := s.Login(t.Context(), "bob")
	if err != nil {
		t.Fatal(err)
	}
	in := SignIn{Checked: u.Password, Session: NewSession{Hash: HashToken("three")}, Ends: HashToken("two")}
	if _, err := Do(t.Context(), s.Service, bob, in); err != nil {
		t.Fatal(err)
	}
	s.wantLive("two became three", []string{"one", "bob's", "three"}, all...)
	for _, checked := range []string{"", "$argon2id$old"} {
		in := SignIn{Checked: checked, Session: NewSession{Hash: HashToken("four")}, Ends: HashToken("one")}
		if _, err := Do(t.Context(), s.Service, owner, in); !errors.Is(err, ErrNotFound) {
			t.Errorf("a password that is none any more signs in: %v", err)
		}
	}
	s.wantLive("refused", []string{"one", "bob's", "three"}, all...)

	// Touching is no operation.
	s.clock.Add(time.Hour)
	if err := s.TouchSession(t.Context(), HashToken("one")); err != nil {
		t.Fatal(err)
	}
	if got, _, err := s.Session(t.Context(), HashToken("one")); err != nil || !got.Seen.Equal(s.clock.Now()) {
		t.Errorf("%+v, %v", got, err)
	}

	if err := do(bob, EndOtherSessions{HashToken("three")}); err != nil {
		t.Fatal(err)
	}
	s.wantLive("others ended", []string{"one", "three"}, all...)
	if err := do(bob, ChangePassword{Checked: "wrong", Password: "$argon2id$new", Session: NewSession{Hash: HashToken("four")}}); !errors.Is(err, ErrNotFound) {
		t.Errorf("a password that was changed meanwhile: %v", err)
	}
	if err := do(bob, ChangePassword{Checked: u.Password, Password: "$argon2id$new", Session: NewSession{Hash: HashToken("four")}, Ends: HashToken("one")}); !errors.Is(err, ErrNotFound) {
		t.Errorf("in a session of another: %v", err)
	}
	s.clock.Add(time.Minute)
	if err := do(bob, ChangePassword{Checked: u.Password, Password: "$argon2id$new", Session: NewSession{Hash: HashToken("four")}, Ends: HashToken("three")}); err != nil {
		t.Fatal(err)
	}
	if got, _, err := s.Session(t.Context(), HashToken("four")); err != nil || got.Method != store.WithPassword || !got.Created.Equal(s.clock.Now().Add(-time.Hour-time.Minute)) {
		t.Errorf("another password made a sign-in of it: %+v, %v", got, err)
	}
	s.wantLive("password changed", []string{"one", "four"}, all...)
	if u, err := s.Login(t.Context(), "bob"); err != nil || u.Password != "$argon2id$new" {
		t.Errorf("%+v, %v", u, err)
	}
	if err := do(bob, EndSession{HashToken("four")}); err != nil {
		t.Fatal(err)
	}
	if err := do(bob, EndSession{HashToken("four")}); !errors.Is(err, ErrNotFound) {
		t.Errorf("ended twice: %v", err)
	}
	if err := do(System(), EndSession{HashToken("one")}); err != nil {
		t.Fatal(err)
	}
	s.wantLive("ended", nil, all...)

	path, err := s.LoginLink(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	token := strings.TrimPrefix(path, "/welcome?link=")
	if _, err := Do(t.Context(), s.Service, owner, UseLink{Link: HashToken(token), Password: "$argon2id$newest", Session: NewSession{Hash: HashToken("five"), Agent: "Firefox"}}); err != nil {
		t.Fatal(err)
	}
	lines, _ := s.records(before)
	b := func(agent, address, with, since string) string {
		return `{"address":"` + address + `","agent":"` + agent + `","since":"` + since + `","with":"` + with + `"}`
	}
	const noon, later = "2026-03-01T12:00:00Z", "2026-03-01T13:01:00Z"
	want := []string{
		"session.create user admin by admin via console:  -> " + b("a[31mb", "192.0.2.50", "password", noon),
		"session.create user admin by admin via console:  -> " + b("a[31mb", "192.0.2.50", "password", noon),
		"session.create user bob by bob via console:  -> " + b("a[31mb", "192.0.2.51", "password", noon),
		"session.end user admin by bob via console: " + b("a[31mb", "192.0.2.50", "password", noon) + " -> ",
		"session.create user bob by bob via console:  -> " + b("", "192.0.2.51", "password", noon),
		"session.end user bob by bob via console: " + b("a[31mb", "192.0.2.51", "password", noon) + " -> ",
		"session.end user bob by bob via console: " + b("", "192.0.2.51", "password", noon) + " -> ",
		"user.password user bob by bob via console:  -> ",
		"session.create user bob by bob via console:  -> " + b("", "192.0.2.51", "new password", noon),
		"session.end user bob by bob via console: " + b("", "192.0.2.51", "password", noon) + " -> ",
		"session.end user admin by server via system: " + b("a[31mb", "192.0.2.50", "password", noon) + " -> ",
		"user.link user admin by root via cli:  -> ",
		"session.create user admin by admin via console:  -> " + b("Firefox", "192.0.2.50", "link", later),
	}
	if !slices.Equal(lines, want) {
		t.Errorf("recorded\n%s\nwant\n%s", strings.Join(lines, "\n"), strings.Join(want, "\n"))
	}
	everything := strings.Join(lines, "\n") + s.log.String()
	for _, secret := range append(all, "argon2id", token) {
		sum := HashToken(secret)
		if secret == "argon2id" || secret == token {
			if strings.Contains(everything, secret) {
				t.Errorf("%q is in the audit or the log", secret)
			}
		}
		for _, text := range []string{hex.EncodeToString(sum[:])[:16], b64(sum[:])[:16]} {
			if strings.Contains(everything, text) {
				t.Errorf("the hash of %q is in the audit or the log", secret)
			}
		}
	}
}

// refusalLines are the records of what was refused.
func (s *site) refusalLines() (lines []string) {
	s.t.Helper()
	err := s.store.Read(context.Background(), func(r *store.Reader) error {
		return r.EachAudit(s.network, store.AuditFilter{Oldest: true}, func(rec audit.Record, _ audit.Hash) error {
			if rec.Refused != "" {
				lines = append(lines, fmt.Sprintf("%s %s of %q by %q from %s: %s, %d", rec.At.Format("15:04"), rec.Op, rec.Name, rec.User, rec.From, rec.Refused, rec.Count))
			}
			return nil
		})
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return lines
}

// What is refused is counted by the minute and by where it came from.
func TestRefusals(t *testing.T) {
	s := openSite(t)
	bob := s.member("bob")
	admin, err := s.Login(t.Context(), "admin")
	if err != nil {
		t.Fatal(err)
	}
	from := func(a string) Actor { return Actor{Via: ViaConsole, From: netip.MustParseAddr(a)} }
	for i := range 5 {
		s.Refused(from("198.51.100.1"), SignIn{}, admin, "wrong password")
		s.Refused(from(fmt.Sprintf("2001:db8:1:2::%x", i+1)), SignIn{}, store.User{}, "wrong password")
	}
	for range 2 {
		if _, err := Do(t.Context(), s.Service, bob, EditDNS{}); !errors.Is(err, ErrForbidden) {
			t.Fatal(err)
		}
	}
	if err := s.flushRefusals(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	if got := s.refusalLines(); len(got) != 0 {
		t.Errorf("written before the minute was over: %q", got)
	}
	s.clock.Add(time.Minute)
	s.Refused(from("198.51.100.1"), SignIn{}, admin, "wrong password")
	if err := s.flushRefusals(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	want := []string{
		`12:00 dns.edit of "" by "bob" from 192.0.2.51: not allowed, 2`,
		`12:00 session.create of "" by "" from 2001:db8:1:2::: wrong password, 5`,
		`12:00 session.create of "admin" by "" from 198.51.100.1: wrong password, 5`,
	}
	got := s.refusalLines()
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	// At the end of the server the minute need not be over.
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s.Run(ctx)
	if got := s.refusalLines(); len(got) != 4 || got[3] != `12:01 session.create of "admin" by "" from 198.51.100.1: wrong password, 1` {
		t.Errorf("%q", got)
	}
}

// Strangers write little into the audit, from however many places they come, and
// whatever cannot be written is not forgotten.
func TestRefusalsAreBounded(t *testing.T) {
	fail := errors.New("no room")
	var broken error
	s := openSite(t, func(o *Options) { o.BeforeCommit = func() error { return broken } })
	many := func() {
		for i := range 100_000 {
			s.Refused(Actor{Via: ViaConsole, From: netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})}, SignIn{}, store.User{}, "wrong password")
		}
	}
	for range 3 {
		many()
		s.clock.Add(time.Minute)
	}
	broken = fail
	if err := s.flushRefusals(t.Context(), false); !errors.Is(err, fail) {
		t.Fatal(err)
	}
	broken = nil
	if err := s.flushRefusals(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	total := 0
	err := s.store.Read(t.Context(), func(r *store.Reader) error {
		return r.EachAudit(s.network, store.AuditFilter{}, func(rec audit.Record, _ audit.Hash) error {
			if rec.Refused != "" {
				total += int(rec.Count)
			}
			return nil
		})
	})
	if n := len(s.refusalLines()); err != nil || n > maxRefusals+3 || total != 300_000 {
		t.Errorf("%d records of %d refusals, %v", n, total, err)
	}
}

// However many places strangers come from: what users were refused is written with who
// they are.
func TestRefusalsOfUsersAmongStrangers(t *testing.T) {
	s := openSite(t)
	_, member := s.user(CreateUser{Name: "bob"})
	for i := range 1000 {
		s.RefusedToken(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), "no such token")
	}
	if _, err := Do(t.Context(), s.Service, member, CreateUser{Name: "eve"}); !errors.Is(err, ErrForbidden) {
		t.Fatal(err)
	}
	s.clock.Add(time.Minute)
	if err := s.flushRefusals(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	found := false
	err := s.store.Read(t.Context(), func(r *store.Reader) error {
		return r.EachAudit(s.network, store.AuditFilter{}, func(rec audit.Record, _ audit.Hash) error {
			found = found || rec.Refused != "" && rec.User == "bob" && rec.Op == "user.create"
			return nil
		})
	})
	if err != nil || !found {
		t.Errorf("what bob was refused is not among %d records, %v", len(s.refusalLines()), err)
	}
}

// What hands over an account or a network wants a sign-in of the last minutes, of people
// in the console: a program and whoever has the data directory have none.
func TestFresh(t *testing.T) {
	s := openSite(t)
	owner := s.owner()
	s.member("bob")
	hash := s.signedIn(owner, "one")
	session, u, err := s.Session(t.Context(), hash)
	if err != nil {
		t.Fatal(err)
	}
	a := s.SessionActor(session, u, owner.From)
	link := func(a Actor) error { _, err := Do(t.Context(), s.Service, a, CreateLink{"bob"}); return err }
	if err := link(owner); !errors.Is(err, ErrStale) {
		t.Errorf("without a session: %v", err)
	}
	s.clock.Add(FreshFor - time.Second)
	if err := errors.Join(link(a), s.CheckFresh(a, CreateLink{})); err != nil {
		t.Error(err)
	}
	s.clock.Add(time.Second)
	_, err = Do(t.Context(), s.Service, a, DeleteUser{Name: "bob"})
	for _, err := range []error{link(a), s.CheckFresh(a, CreateLink{}), err} {
		if !errors.Is(err, ErrStale) || errors.Is(err, ErrForbidden) {
			t.Errorf("5 minutes later: %v", err)
		}
	}
	if err := s.CheckFresh(a, CreateKey{}); err != nil {
		t.Error(err)
	}
	s.clock.Add(-time.Hour) // a clock that was put back is no sign-in
	if err := link(a); !errors.Is(err, ErrStale) {
		t.Errorf("from the future: %v", err)
	}
	for _, a := range []Actor{Root(), {UserID: u.ID, Role: RoleOwner, Via: ViaAPI}} {
		if err := link(a); err != nil {
			t.Errorf("%s: %v", a.Via, err)
		}
	}
	// So it is with whatever makes or unmakes an owner, and with deleting records.
	member := RoleMember
	for name, err := range map[string]error{
		"an owner": func() error {
			_, err := Do(t.Context(), s.Service, a, EditUser{Name: u.Name, Role: &member})
			return err
		}(),
		"records": func() error {
			_, err := Do(t.Context(), s.Service, a, TrimAudit{Before: s.clock.Now().Add(-48 * time.Hour)})
			return err
		}(),
	} {
		if !errors.Is(err, ErrStale) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Do(t.Context(), s.Service, a, EditUser{Name: "bob", Role: &member}); err != nil {
		t.Errorf("somebody else: %v", err)
	}
	// What may not be done at all is said first.
	bob, err := s.Login(t.Context(), "bob")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Do(t.Context(), s.Service, ConsoleActor(bob, owner.From), CreateUser{Name: "x"}); !errors.Is(err, ErrForbidden) {
		t.Error(err)
	}
}
