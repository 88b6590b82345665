package ops

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"weft/coord/store"
	"weft/overlay/api"
)

func (s *site) signInDays(days int) {
	s.t.Helper()
	if _, err := Do(context.Background(), s.Service, Root(), SetSignIn{DeviceDays: &days}); err != nil {
		s.t.Fatal(err)
	}
}

// lapse does what Run does every second.
func (s *site) lapse() {
	s.t.Helper()
	if _, err := s.checkSignIns(context.Background(), -1); err != nil {
		s.t.Fatal(err)
	}
}

// signInAgain has a device ask to be signed in again, and returns the code.
func (s *site) signInAgain(d *device) string {
	s.t.Helper()
	req := d.ask(s.t, d.name())
	req.SignIn = true
	res, err := d.Ask(context.Background(), req)
	if err != nil || res.State != api.AskWaiting {
		s.t.Fatalf("%+v, %v", res, err)
	}
	return res.Code
}

func (s *site) node(d *device) store.Node {
	s.t.Helper()
	n, err := s.FindDevice(context.Background(), d.id.String())
	if err != nil {
		s.t.Fatal(err)
	}
	return n
}

// letsIn reports whether the rules of a device mean another one, which acts as a user.
func letsIn(c *api.Config, d *device, user string) bool {
	return slices.ContainsFunc(c.Rules, func(r api.Rule) bool {
		return slices.Contains(r.From, "user:"+user) || slices.Contains(r.From, "*") ||
			slices.Contains(r.From, api.NotOverdue+"user:"+user) && !slices.Contains(c.Overdue, d.id.String())
	})
}

func TestSignInDue(t *testing.T) {
	at := func(s string) time.Time {
		v, err := time.Parse("2006-01-02 15:04:05", s)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	from := at("2026-11-30 10:00:00")
	laptop := store.Node{SignedIn: at("2026-11-29 12:34:56"), OfPerson: true}
	for _, c := range []struct {
		name        string
		set         store.SignIn
		node        store.Node
		due, remind string // "" for never
	}{
		{"off", store.SignIn{}, laptop, "", ""},
		{"since it was signed in, on the full hour", store.SignIn{DeviceDays: 10}, laptop, "2026-12-09 13:00:00", "2026-12-07 13:00:00"},
		{"since it is demanded", store.SignIn{DeviceDays: 10, DeviceFrom: &from}, laptop, "2026-12-10 10:00:00", "2026-12-08 10:00:00"},
		{"a day", store.SignIn{DeviceDays: 1}, laptop, "2026-11-30 13:00:00", "2026-11-30 08:12:00"},
		{"a year: a week before", store.SignIn{DeviceDays: 365}, laptop, "2027-11-29 13:00:00", "2027-11-22 13:00:00"},
		{"with a tag", store.SignIn{DeviceDays: 10}, store.Node{SignedIn: laptop.SignedIn, OfPerson: true, Tags: []string{"camera"}}, "", ""},
		{"of a service", store.SignIn{DeviceDays: 10}, store.Node{SignedIn: laptop.SignedIn}, "", ""},
	} {
		due, remind, ok := signInDue(c.set, c.node)
		if ok != (c.due != "") || ok && (!due.Equal(at(c.due)) || !remind.Equal(at(c.remind))) {
			t.Errorf("%s: %v, %v, %v", c.name, due, remind, ok)
		}
		if !ok {
			continue
		}
		// What the database is asked is the same.
		for d := -2 * time.Hour; d <= 2*time.Hour; d += 7 * time.Minute {
			now := due.Add(d)
			if overdue := !c.node.SignedIn.After(overdueUntil(c.set, now)); overdue == now.Before(due) {
				t.Errorf("%s: overdue %v at %v, due %v", c.name, overdue, now, due)
			}
		}
	}
}

// A person's device that was not signed in for too long reaches nothing, and is reached as
// before. Others of the same person, tagged devices and those of services go on. Nothing
// of it is gone: signed in, it is what it was.
func TestOverdue(t *testing.T) {
	for name, text := range map[string]string{
		"own devices": "",
		"by name":     `{"rules":[{"from":["user:alice"],"to":["*"],"ports":["*"]}]}`,
		"everybody":   `{"rules":[{"from":["*"],"to":["*"],"ports":["*"]}]}`,
		"with AES":    `{"rules":[{"from":["user:alice","tag:cam"],"to":["*"],"ports":["*"],"aes":true}]}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := openSite(t)
			alice := s.member("alice")
			s.user(CreateUser{Name: "robot", Service: true})
			if text != "" {
				if err := s.SetPolicy(t.Context(), text); err != nil {
					t.Fatal(err)
				}
			}
			laptop, pi := s.joined(CreateKey{User: "alice"}, "laptop"), s.joined(CreateKey{User: "alice", Tags: []string{"cam"}}, "pi")
			program := s.joined(CreateKey{User: "robot"}, "program")
			lets := func(at, d *device) bool {
				t.Helper()
				c := s.config(at)
				for i := range c.Rules { // no matter how packets are encrypted
					c.Rules[i].From = slices.Clone(c.Rules[i].From)
					for j, w := range c.Rules[i].From {
						c.Rules[i].From[j] = strings.TrimPrefix(w, api.AESOnly)
					}
				}
				return letsIn(c, d, "alice")
			}
			s.signInDays(10)
			if c := s.config(laptop); c.SignIn == nil || c.SignIn.Overdue || !c.SignIn.Due.After(s.clock.Now().Add(239*time.Hour)) || s.config(pi).SignIn != nil || s.config(program).SignIn != nil {
				t.Errorf("%+v, %+v, %+v", c.SignIn, s.config(pi).SignIn, s.config(program).SignIn)
			}
			s.clock.Add(9 * 24 * time.Hour)
			s.lapse()
			other := s.joined(CreateKey{User: "alice"}, "other")
			if !lets(pi, laptop) || s.node(laptop).Overdue {
				t.Fatal("it is overdue before its time")
			}
			before, piBefore, otherBefore := s.Versions(laptop.id), s.Versions(pi.id), s.Versions(other.id)
			s.clock.Add(25 * time.Hour)
			s.lapse()
			s.agrees()
			if lets(pi, laptop) || !lets(pi, other) || !s.node(laptop).Overdue || s.node(other).Overdue || s.node(program).Overdue || s.node(pi).Overdue {
				t.Errorf("%+v", s.config(pi).Rules)
			}
			c := s.config(laptop)
			if !c.SignIn.Overdue || c.Directory || c.Lookup || !slices.ContainsFunc(c.Rules, func(r api.Rule) bool { return len(r.From) > 0 }) {
				t.Errorf("%+v", c)
			}
			if now := s.Versions(laptop.id); now.Config == before.Config || !now.Directory.IsZero() || s.Versions(pi.id).Config == piBefore.Config {
				t.Errorf("%+v, %+v", before, now)
			}
			// Those whom its user does not reach fetch nothing.
			if now := s.Versions(other.id).Config; (now == otherBefore.Config) && name != "with AES" && lets(other, other) != true {
				t.Errorf("%+v", now)
			}
			if _, err := laptop.Lookup(t.Context(), "name", "pi"); err == nil {
				t.Error("it looks another one up")
			}
			if _, err := other.Lookup(t.Context(), "name", "laptop"); err != nil {
				t.Errorf("it cannot be found: %v", err)
			}
			if d, err := s.Device(t.Context(), alice, "laptop"); err != nil || d.SignIn == nil || !d.SignIn.Overdue || !d.SignIn.Soon || d.IPv4 != s.node(laptop).IPv4 {
				t.Errorf("%+v, %v", d.SignIn, err)
			}
			if a, err := s.CanReach(t.Context(), Root(), AccessQuery{From: "device:laptop", To: "pi:22"}); err != nil || a.Allowed || !strings.Contains(a.Why, "laptop has to be signed in again") {
				t.Errorf("%+v, %v", a, err)
			}
			records, _ := s.audited("device.overdue", nil)
			if len(records) != 1 {
				t.Errorf("%v", records)
			}
			// The clock is put right; and back again.
			s.clock.Add(-30 * time.Hour)
			s.lapse()
			if !lets(pi, laptop) || !s.config(laptop).Directory {
				t.Error("it stays overdue although its time has not come")
			}
			s.clock.Add(30 * time.Hour)
			s.lapse()

			code := s.signInAgain(laptop)
			alice.SignedIn = s.clock.Now()
			r, err := s.Request(t.Context(), alice, code)
			if err != nil || !r.SignIn || r.Name != "laptop" || r.From != "192.0.2.1" {
				t.Errorf("%+v, %v", r, err)
			}
			was := s.node(laptop)
			n, err := Do(t.Context(), s.Service, alice, SignInDevice{Code: code})
			if err != nil || n.ID != laptop.id || n.Overdue {
				t.Fatalf("%+v, %v", n, err)
			}
			s.agrees()
			now := s.node(laptop)
			if now.Name != was.Name || now.IPv4 != was.IPv4 || string(now.Certificate) != string(was.Certificate) || !now.SignedIn.Equal(s.clock.Now().Truncate(time.Second)) {
				t.Errorf("%+v, before %+v", now, was)
			}
			if !lets(pi, laptop) || !s.config(laptop).Directory {
				t.Error("it is not let in again")
			}
			if d, err := laptop.Directory(t.Context(), api.Version{}); err != nil || len(d.Peers) == 0 {
				t.Errorf("%+v, %v", d, err)
			}
			res, err := laptop.PollAsk(t.Context(), api.Poll{SignIn: true})
			if err != nil || res.State != api.AskApproved || res.Join == nil || res.Join.Config.SignIn.Overdue {
				t.Errorf("%+v, %v", res, err)
			}
			for _, a := range s.config(pi).Rules {
				if slices.ContainsFunc(a.From, func(w string) bool { return strings.Contains(w, api.NotOverdue) }) {
					t.Errorf("nobody is overdue, and %v", a.From)
				}
			}
		})
	}
}

// Turning it on, and a shorter period, cut nobody off at once. Turned off, nobody is. What
// is changed is in the audit.
func TestSignInDays(t *testing.T) {
	s := openSite(t)
	laptop := s.laptop("laptop")
	s.clock.Add(1000 * 24 * time.Hour)
	at := func(days int, passed time.Duration, overdue bool) {
		t.Helper()
		s.signInDays(days)
		s.clock.Add(passed)
		s.lapse()
		if got := s.node(laptop).Overdue; got != overdue {
			t.Errorf("%d days: overdue %v", days, got)
		}
		if c := s.config(laptop); (c.SignIn != nil) != (days > 0) || c.SignIn != nil && c.SignIn.Overdue != overdue {
			t.Errorf("%d days: %+v", days, c.SignIn)
		}
		s.agrees()
	}
	day := 24 * time.Hour
	at(30, 29*day, false)
	at(7, 6*day, false)
	at(7, 2*day, true)
	at(30, 0, false) // longer, since then
	at(30, 23*day, true)
	at(0, 0, false)
	for _, bad := range []int{-1, 366} {
		if _, err := Do(t.Context(), s.Service, Root(), SetSignIn{DeviceDays: &bad}); !errors.Is(err, ErrInvalid) {
			t.Errorf("%d: %v", bad, err)
		}
	}
	if records, _ := s.records(0); !slices.ContainsFunc(records, func(r string) bool {
		return strings.HasPrefix(r, "sign-in.set") && strings.Contains(r, `"device_days":0`) && strings.Contains(r, `"device_days":30`)
	}) {
		t.Errorf("%v", records)
	}
}

// Only the person whose device it is signs it in, in the console and after a sign-in of a
// moment ago; and only a device that has to be.
func TestSignInDevice(t *testing.T) {
	s := openSite(t)
	alice, boss := s.member("alice"), s.owner()
	auditor := s.member("ann")
	if _, err := Do(t.Context(), s.Service, Root(), EditUser{Name: "ann", Role: pointer(RoleAuditor)}); err != nil {
		t.Fatal(err)
	}
	auditor.Role = RoleAuditor
	laptop, anns := s.joined(CreateKey{User: "alice"}, "laptop"), s.joined(CreateKey{User: "ann"}, "anns")
	tagged := s.joined(CreateKey{User: "alice", Tags: []string{"cam"}}, "pi")
	again := func(d *device) (*api.Asked, error) {
		req := d.ask(t, "x")
		req.SignIn = true
		return d.Ask(t.Context(), req)
	}
	// Nothing is asked while nothing is demanded, or it is not due yet.
	if res, err := again(laptop); err != nil || res.State != api.AskApproved || res.Join == nil {
		t.Errorf("%+v, %v", res, err)
	}
	s.signInDays(10)
	if res, err := again(laptop); err != nil || res.State != api.AskApproved {
		t.Errorf("%+v, %v", res, err)
	}
	s.clock.Add(8*24*time.Hour + time.Hour)
	for what, d := range map[string]*device{"tags": tagged, "this device was deleted": newDevice(t, s.Service)} {
		if _, err := again(d); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%s: %v", what, err)
		}
	}
	code := s.signInAgain(laptop)
	fresh := func(a Actor) Actor { a.SignedIn = s.clock.Now(); return a }
	stale, token := alice, fresh(alice)
	stale.SignedIn = s.clock.Now().Add(-FreshFor)
	token.Via = ViaAPI
	for what, c := range map[string]struct {
		who  Actor
		code string
		want error
	}{
		"the owner of the network": {fresh(boss), code, ErrForbidden},
		"an auditor":               {fresh(auditor), code, ErrForbidden},
		"who has the data":         {Root(), code, ErrForbidden},
		"a token":                  {token, code, ErrForbidden},
		"signed in long ago":       {stale, code, ErrStale},
		"another code":             {fresh(alice), "BCDFG-HJKLM", ErrNotFound},
	} {
		if _, err := Do(t.Context(), s.Service, c.who, SignInDevice{Code: c.code}); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := s.Request(t.Context(), boss, code); !errors.Is(err, ErrForbidden) || !strings.Contains(err.Error(), "belongs to somebody else") {
		t.Errorf("another one's: %v", err)
	}
	if _, err := approve(t, s, boss, code); !errors.Is(err, ErrInvalid) {
		t.Errorf("let in as a new one: %v", err)
	}
	_, join := s.asks("new")
	if _, err := Do(t.Context(), s.Service, fresh(alice), SignInDevice{Code: join}); !errors.Is(err, ErrInvalid) {
		t.Errorf("one that asks to join: %v", err)
	}
	if res, err := laptop.PollAsk(t.Context(), api.Poll{SignIn: true}); err != nil || res.State != api.AskWaiting {
		t.Errorf("%+v, %v", res, err)
	}
	// Who sees the list of those that wait sees it, and not who sees only devices with a tag.
	narrow := fresh(boss)
	narrow.Role, narrow.Tags = RoleOperator, []string{"cam"}
	for what, c := range map[string]struct {
		who  Actor
		want int
	}{"the owner": {boss, 2}, "limited to a tag": {narrow, 1}, "a member": {alice, 0}} {
		if list, err := s.Requests(t.Context(), c.who); err != nil || len(list) != c.want {
			t.Errorf("%s: %+v, %v", what, list, err)
		}
	}
	// An auditor decides about the own device, and so does who is limited to tags.
	if _, err := Do(t.Context(), s.Service, fresh(auditor), SignInDevice{Code: s.signInAgain(anns)}); err != nil {
		t.Error(err)
	}
	if _, err := Do(t.Context(), s.Service, Root(), EditUser{Name: "alice", Tags: pointer([]string{"cam"})}); err != nil {
		t.Fatal(err)
	}
	if _, err := Do(t.Context(), s.Service, alice, DenyRequest{code}); err != nil {
		t.Error(err)
	}
	if res, err := laptop.PollAsk(t.Context(), api.Poll{SignIn: true}); err != nil || res.State != api.AskDenied {
		t.Errorf("%+v, %v", res, err)
	}
	if _, err := Do(t.Context(), s.Service, fresh(alice), SignInDevice{Code: code}); !errors.Is(err, ErrTaken) {
		t.Errorf("denied: %v", err)
	}
	code = s.signInAgain(laptop)
	if _, err := Do(t.Context(), s.Service, fresh(alice), SignInDevice{Code: code}); err != nil {
		t.Error(err)
	}
	if _, err := Do(t.Context(), s.Service, fresh(alice), SignInDevice{Code: code}); !errors.Is(err, ErrTaken) {
		t.Errorf("twice: %v", err)
	}
	// Deleted meanwhile, it is in nobody's way.
	s.clock.Add(9 * 24 * time.Hour)
	code = s.signInAgain(anns)
	s.delete(anns)
	if _, err := Do(t.Context(), s.Service, fresh(auditor), SignInDevice{Code: code}); !errors.Is(err, ErrNotFound) {
		t.Errorf("deleted: %v", err)
	}
	if _, err := s.Requests(t.Context(), boss); err != nil {
		t.Error(err)
	}
	// A server that was restarted knows of no request, and does not say that it was approved.
	s.requests = newAsks()
	if res, err := laptop.PollAsk(t.Context(), api.Poll{SignIn: true}); err != nil || res.State != api.AskUnknown {
		t.Errorf("%+v, %v", res, err)
	}
}

// A device that changes hands, or loses its tags, begins a period. One that gets tags, or is
// deleted, is no longer overdue, and its user's others are named plainly again.
func TestOverdueMoves(t *testing.T) {
	s := openSite(t)
	s.member("alice")
	s.member("bob")
	pi := s.tagged("pi", "cam")
	if err := s.SetPolicy(t.Context(), `{"rules":[{"from":["user:alice","user:bob"],"to":["tag:cam"],"ports":["*"]}]}`); err != nil {
		t.Fatal(err)
	}
	s.signInDays(1)
	for _, c := range []struct {
		name string
		do   func(d *device)
		gone bool
	}{
		{"another owner", func(d *device) { s.mustAssign(d, []string{}, "bob") }, false},
		{"tags, and none", func(d *device) {
			s.mustAssign(d, []string{"cam"}, "alice")
			s.mustAssign(d, []string{}, "alice")
		}, false},
		{"deleted", s.delete, true},
	} {
		d := s.joined(CreateKey{User: "alice"}, "laptop")
		s.clock.Add(26 * time.Hour)
		s.lapse()
		if !s.node(d).Overdue || s.lets(pi, "user:alice") {
			t.Fatalf("%s: it is not overdue", c.name)
		}
		c.do(d)
		s.agrees()
		if !s.lets(pi, "user:alice") || len(s.config(pi).Overdue) > 0 {
			t.Errorf("%s: %+v", c.name, s.config(pi).Rules)
		}
		if c.gone {
			continue
		}
		s.lapse()
		if n := s.node(d); n.Overdue || !n.SignedIn.Equal(s.clock.Now().Truncate(time.Second)) {
			t.Errorf("%s: %+v", c.name, n)
		}
		s.delete(d)
	}
}
