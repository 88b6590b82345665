package ops

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"weft/coord/passkey"
	"weft/coord/store"
)

// invites returns the hash of an invitation's token.
func (s *site) invites(a Actor, c InviteUser) [32]byte {
	s.t.Helper()
	in, err := Do(context.Background(), s.Service, a, c)
	if err != nil {
		s.t.Fatal(err)
	}
	return HashToken(strings.TrimPrefix(in.Path, "/welcome?link="))
}

// accepts uses an invitation as whoever it is for.
func (s *site) accepts(name string, link [32]byte, n NewSession, ends [32]byte) error {
	s.t.Helper()
	u, err := s.Login(context.Background(), name)
	if err != nil {
		s.t.Fatal(err)
	}
	_, err = Do(context.Background(), s.Service, ConsoleActor(u, s.owner().From), UseLink{Link: link, Password: "hash", Session: n, Ends: ends})
	return err
}

// waysIn are how somebody takes an invitation, as the n-th who does.
var waysIn = map[string]func(s *site, name string, link [32]byte, n int, here [32]byte) error{
	"password": func(s *site, name string, link [32]byte, n int, here [32]byte) error {
		return s.accepts(name, link, NewSession{Hash: HashToken(fmt.Sprint("password", n))}, here)
	},
	"passkey": func(s *site, name string, link [32]byte, n int, here [32]byte) error {
		u, err := s.Login(context.Background(), name)
		if err != nil {
			s.t.Fatal(err)
		}
		key := &AddPasskey{Key: passkey.Key{ID: []byte{byte(n)}, PublicKey: []byte("key")}, Domain: "example.org"}
		_, err = Do(context.Background(), s.Service, ConsoleActor(u, s.owner().From), UseLink{Link: link, Passkey: key, Session: NewSession{Hash: HashToken(fmt.Sprint("passkey", n))}, Ends: here})
		return err
	},
	"provider": func(s *site, _ string, link [32]byte, n int, here [32]byte) error {
		_, err := Do(context.Background(), s.Service, Actor{Via: ViaConsole}, SignInWithProvider{
			Who: foreigner(fmt.Sprint("somebody ", n), false), Link: link, Session: NewSession{Hash: HashToken(fmt.Sprint("provider", n))}, Ends: here,
		})
		return err
	},
}

func (s *site) row(name string) store.UserRow {
	s.t.Helper()
	p, err := s.User(context.Background(), Root(), name)
	if err != nil {
		s.t.Fatal(err)
	}
	return p
}

// An invitation lets somebody new in once, with the role that it was made for, and is seen
// in the list of users until then.
func TestInvitation(t *testing.T) {
	s := openSite(t)
	link := s.invites(Root(), InviteUser{Name: "ivy", Role: RoleOperator, Tags: []string{"camera"}, DisplayName: "Ivy"})
	p := s.row("ivy")
	if p.Role != "operator" || p.Tags[0] != "camera" || p.DisplayName != "Ivy" || p.SignedIn != nil || p.Invited == nil || !p.Invited.Equal(s.clock.Now().Add(DefaultInviteLife).Truncate(time.Second)) {
		t.Errorf("%+v", p)
	}
	for range 3 { // looking uses nothing up
		if l, err := s.Link(t.Context(), link, [32]byte{}); err != nil || !l.Invites || l.User.Name != "ivy" {
			t.Fatalf("%+v, %v", l, err)
		}
	}
	var ok atomic.Int32
	var wg sync.WaitGroup
	for way, takes := range waysIn {
		for i := range 50 {
			wg.Go(func() {
				switch err := takes(s, "ivy", link, i, [32]byte{}); {
				case err == nil:
					ok.Add(1)
				case !errors.Is(err, ErrNotFound):
					t.Errorf("%s: %v", way, err)
				}
			})
		}
	}
	wg.Wait()
	u := s.row("ivy").User
	err := s.store.Read(t.Context(), func(r *store.Reader) error {
		sessions, err := r.Sessions(s.network, u.ID)
		passkeys, err2 := r.Passkeys(s.network, u.ID)
		identities, err3 := r.Identities(s.network)
		if len(sessions) != 1 || len(passkeys)+len(identities)+min(1, len(u.Password)) != 1 {
			t.Errorf("%d sessions, %d passkeys, %+v, password %q", len(sessions), len(passkeys), identities, u.Password)
		}
		return errors.Join(err, err2, err3)
	})
	if err != nil {
		t.Error(err)
	}
	if p := s.row("ivy"); ok.Load() != 1 || p.Invited != nil || p.SignedIn == nil || !p.SignedIn.Equal(s.clock.Now().Truncate(time.Second)) {
		t.Errorf("%d uses; %+v", ok.Load(), p)
	}
	// No way into an account that is in use, nor for a service.
	for _, name := range []string{"ivy", s.service("robot")} {
		if _, err := Do(t.Context(), s.Service, Root(), InviteUser{Name: name}); !errors.Is(err, ErrTaken) {
			t.Errorf("%s is invited: %v", name, err)
		}
	}
}

func (s *site) service(name string) string {
	s.user(CreateUser{Name: name, Service: true})
	return name
}

// An invitation ends with its time, when it is revoked, when another one takes its place,
// when its user signs in another way, is suspended or deleted; and it is good only while who
// sent it might send it now.
func TestInvitationEnds(t *testing.T) {
	for name, c := range map[string]struct {
		do   func(s *site, admin string, link [32]byte) error
		want error
	}{
		"nothing": {func(*site, string, [32]byte) error { return nil }, nil},
		"time":    {func(s *site, _ string, _ [32]byte) error { s.clock.Add(DefaultInviteLife); return nil }, ErrNotFound},
		"revoked": {func(s *site, _ string, _ [32]byte) error {
			_, err := Do(context.Background(), s.Service, Root(), RevokeInvitation{"ivy"})
			return err
		}, ErrNotFound},
		"another": {func(s *site, _ string, _ [32]byte) error { s.invites(Root(), InviteUser{Name: "ivy"}); return nil }, ErrNotFound},
		"signed in": {func(s *site, _ string, _ [32]byte) error {
			path, err := s.LoginLink(context.Background(), "ivy")
			if err != nil {
				return err
			}
			return s.accepts("ivy", HashToken(strings.TrimPrefix(path, "/welcome?link=")), NewSession{Hash: [32]byte{5}}, [32]byte{})
		}, ErrNotFound},
		"suspended":         {func(s *site, _ string, _ [32]byte) error { s.suspend("ivy"); s.resume("ivy"); return nil }, ErrNotFound},
		"inviter suspended": {func(s *site, admin string, _ [32]byte) error { s.suspend(admin); return nil }, ErrInviter},
		"inviter resumed":   {func(s *site, admin string, _ [32]byte) error { s.suspend(admin); s.resume(admin); return nil }, nil},
		"inviter demoted": {func(s *site, admin string, _ [32]byte) error {
			_, err := Do(context.Background(), s.Service, Root(), EditUser{Name: admin, Role: pointer(RoleOperator)})
			return err
		}, ErrInviter},
		"inviter deleted": {func(s *site, admin string, _ [32]byte) error {
			_, err := Do(context.Background(), s.Service, Root(), DeleteUser{Name: admin})
			return err
		}, ErrInviter},
		"more than the inviter has": {func(s *site, _ string, _ [32]byte) error {
			_, err := Do(context.Background(), s.Service, Root(), EditUser{Name: "ivy", Role: pointer(RoleOwner)})
			return err
		}, ErrInviter},
	} {
		t.Run(name, func(t *testing.T) {
			s := openSite(t)
			_, admin := s.user(CreateUser{Name: "adam", Role: RoleAdmin})
			link := s.invites(admin, InviteUser{Name: "ivy", Role: RoleAuditor})
			if err := c.do(s, "adam", link); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Link(t.Context(), link, [32]byte{}); !errors.Is(err, c.want) {
				t.Errorf("the page: %v", err)
			}
			for way, takes := range waysIn {
				if err := takes(s, "ivy", link, 9, [32]byte{}); !errors.Is(err, c.want) {
					t.Errorf("using it with a %s: %v", way, err)
				}
				if c.want == nil {
					break
				}
			}
			if list, err := s.Identities(t.Context(), Root()); c.want != nil && (err != nil || len(list) > 0) {
				t.Errorf("%+v, %v", list, err)
			}
		})
	}
}

// Somebody who is suspended takes no invitation, nor gets one.
func TestInvitationOfSuspended(t *testing.T) {
	s := openSite(t)
	link := s.invites(Root(), InviteUser{Name: "ivy"})
	s.suspend("ivy")
	for way, takes := range waysIn {
		if err := takes(s, "ivy", link, 1, [32]byte{}); err == nil {
			t.Errorf("with a %s somebody is signed in who is suspended", way)
		}
	}
	if _, err := s.Link(t.Context(), link, [32]byte{}); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
	if _, err := Do(t.Context(), s.Service, Root(), InviteUser{Name: "ivy"}); !errors.Is(err, ErrSuspended) {
		t.Error(err)
	}
	if p := s.row("ivy"); !p.New || p.Invited != nil || p.SignedIn != nil {
		t.Errorf("%+v", p)
	}
}

// Who may invite whom, and how many.
func TestWhoInvites(t *testing.T) {
	s := openSite(t)
	_, admin := s.user(CreateUser{Name: "adam", Role: RoleAdmin})
	_, operator := s.user(CreateUser{Name: "oscar", Role: RoleOperator})
	s.user(CreateUser{Name: "olga", Role: RoleOwner}) // has not signed in
	for _, c := range []struct {
		who  Actor
		what InviteUser
		want error
	}{
		{operator, InviteUser{Name: "x"}, ErrForbidden},
		{operator, InviteUser{Name: "olga"}, ErrForbidden},
		{admin, InviteUser{Name: "x", Role: RoleOwner}, ErrForbidden},
		{admin, InviteUser{Name: "olga"}, ErrForbidden},
		{admin, InviteUser{Name: "x", Role: "boss"}, ErrInvalid},
		{admin, InviteUser{Name: "a b"}, ErrInvalid},
		{admin, InviteUser{Name: "x", Life: time.Second}, ErrInvalid},
		{admin, InviteUser{Name: "x", Life: 31 * 24 * time.Hour}, ErrInvalid},
		{admin, InviteUser{Name: "oscar", Role: RoleMember}, ErrInvalid}, // that is for user.edit
		{admin, InviteUser{Name: "oscar"}, nil},
		{Root(), InviteUser{Name: "olga"}, nil},
	} {
		if _, err := Do(t.Context(), s.Service, c.who, c.what); !errors.Is(err, c.want) {
			t.Errorf("%s: %+v: %v", c.who.User, c.what, err)
		}
	}
	var err error
	for i := 0; err == nil; i++ { // oscar and olga are the first
		if _, err = Do(t.Context(), s.Service, admin, InviteUser{Name: fmt.Sprint("n", i)}); err != nil && (i != maxInvitations-2 || !errors.Is(err, ErrInvalid)) {
			t.Fatalf("invitation %d: %v", i, err)
		}
	}
	if _, err := Do(t.Context(), s.Service, admin, InviteUser{Name: "oscar"}); err != nil {
		t.Errorf("one takes the place of another where there are as many as can be: %v", err)
	}
	s.clock.Add(DefaultInviteLife)
	if _, err := Do(t.Context(), s.Service, admin, InviteUser{Name: "later"}); err != nil {
		t.Errorf("those that have ended count: %v", err)
	}
}

// In a browser where somebody else is signed in an invitation is refused, and not used up.
func TestInvitationOfAnother(t *testing.T) {
	s := openSite(t)
	link := s.invites(Root(), InviteUser{Name: "ivy"})
	here := s.signedIn(s.owner(), "the owner's")
	if _, err := s.Link(t.Context(), link, here); !errors.Is(err, ErrOtherPerson) {
		t.Error(err)
	}
	for way, takes := range waysIn {
		if err := takes(s, "ivy", link, 9, here); !errors.Is(err, ErrOtherPerson) {
			t.Errorf("with a %s: %v", way, err)
		}
	}
	if _, _, err := s.Session(t.Context(), here); err != nil {
		t.Errorf("the session: %v", err)
	}
	if _, err := Do(t.Context(), s.Service, System(), EndSession{here}); err != nil {
		t.Fatal(err)
	}
	if err := s.accepts("ivy", link, NewSession{Hash: [32]byte{9}}, here); err != nil {
		t.Error(err)
	}
}

// The link of an invitation leads to the first address by which other machines reach the
// server, if it has one, though its console is on loopback.
func TestInviteURL(t *testing.T) {
	for _, c := range []struct {
		urls []string
		want string
	}{
		{[]string{"https://127.0.0.1:8443"}, "http://127.0.0.1:8080/x"},
		{[]string{"https://[::1]:8443", "https://localhost:8443", "https://weft.localhost"}, "http://127.0.0.1:8080/x"},
		{[]string{"https://127.0.0.1:8443", "https://vpn.example:8443", "https://203.0.113.7:8443"}, "https://vpn.example:8443/x"},
		{[]string{"https://[2001:db8::7]:8443"}, "https://[2001:db8::7]:8443/x"},
	} {
		s := openSite(t, func(o *Options) { o.URLs = c.urls })
		s.SetConsoleURL("http://127.0.0.1:8080")
		if got := s.InviteURL("/x"); got != c.want {
			t.Errorf("%v: %s", c.urls, got)
		}
	}
}
