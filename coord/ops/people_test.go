package ops

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"weft/coord/store"
	"weft/overlay/api"
)

// lets reports whether the rules that a device gets now let in a person's devices
// without tags, or a tag: the word that stands in a certificate.
func (s *site) lets(at *device, word string) bool {
	s.t.Helper()
	c, err := at.Config(s.t.Context(), api.Version{})
	if err != nil {
		s.t.Fatal(err)
	}
	return slices.ContainsFunc(c.Rules, func(r api.Rule) bool {
		return slices.Contains(r.From, word) || slices.Contains(r.From, "*")
	})
}

func (s *site) suspend(name string) {
	s.t.Helper()
	if _, err := Do(context.Background(), s.Service, Root(), SuspendUser{name}); err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) resume(name string) {
	s.t.Helper()
	if _, err := Do(context.Background(), s.Service, Root(), ResumeUser{name}); err != nil {
		s.t.Fatal(err)
	}
}

// Somebody who is suspended is signed out, cannot sign in, and neither the own tokens and
// keys work nor those made for others. All of it comes back but the sessions and links.
func TestSuspendedPeople(t *testing.T) {
	s := openSite(t)
	_, anna := s.user(CreateUser{Name: "anna", Role: RoleAdmin})
	s.user(CreateUser{Name: "robot", Service: true, Role: RoleAuditor})
	link := func() [32]byte {
		path, err := s.LoginLink(t.Context(), "anna")
		if err != nil {
			t.Fatal(err)
		}
		return HashToken(strings.TrimPrefix(path, "/welcome?link="))
	}
	session := HashToken("anna's session")
	if _, err := Do(t.Context(), s.Service, anna, UseLink{Link: link(), Password: "hash", Session: NewSession{Hash: session}}); err != nil {
		t.Fatal(err)
	}
	anna.SignedIn = s.clock.Now()
	made, err := Do(t.Context(), s.Service, anna, CreateToken{User: "robot"})
	if err != nil {
		t.Fatal(err)
	}
	own := s.token(CreateKey{User: "anna", Reusable: true})
	forOthers, err := Do(t.Context(), s.Service, anna, CreateKey{User: firstUser, Reusable: true})
	if err != nil {
		t.Fatal(err)
	}
	left := link()
	works := func() (list []string) {
		note := func(what string, err error) {
			if err == nil {
				list = append(list, what)
			}
		}
		_, err := s.Authenticate(t.Context(), made.Token, anna.From)
		note("token", err)
		note("own key", newDevice(t, s.Service).join(t, own, "x"))
		_, err = Do(t.Context(), s.Service, anna, CreateKey{})
		note("command", err)
		_, err = Do(t.Context(), s.Service, anna, SignIn{Checked: "hash", Session: NewSession{Hash: HashToken("another")}})
		note("sign-in", err)
		k, err := s.Key(t.Context(), Root(), forOthers.ID)
		if err != nil {
			t.Fatal(err)
		}
		if k.State(s.clock.Now()) == store.KeyGood {
			note("key for others", nil)
		}
		return list
	}
	all := []string{"token", "own key", "command", "sign-in", "key for others"}
	if got := works(); !slices.Equal(got, all) {
		t.Fatalf("before: %v", got)
	}
	s.suspend("anna")
	if got := works(); len(got) > 0 {
		t.Errorf("suspended, and these work: %v", got)
	}
	for what, err := range map[string]error{
		"a session": func() error { _, _, err := s.Session(t.Context(), session); return err }(),
		"a link":    func() error { _, err := s.Link(t.Context(), left, [32]byte{}); return err }(),
	} {
		if !errors.Is(err, ErrNotFound) {
			t.Errorf("%s of somebody who is suspended: %v", what, err)
		}
	}
	for what, err := range map[string]error{
		"signing in":    func() error { _, err := Do(t.Context(), s.Service, anna, SignIn{Checked: "hash"}); return err }(),
		"a link":        func() error { _, err := s.LoginLink(t.Context(), "anna"); return err }(),
		"a key of hers": func() error { _, err := Do(t.Context(), s.Service, Root(), CreateKey{User: "anna"}); return err }(),
	} {
		if !errors.Is(err, ErrSuspended) {
			t.Errorf("%s while suspended: %v", what, err)
		}
	}
	s.resume("anna")
	if got := works(); !slices.Equal(got, all) {
		t.Errorf("resumed: %v", got)
	}
	// Whoever is deleted took what they made along.
	if _, err := Do(t.Context(), s.Service, Root(), DeleteUser{Name: "anna", DeleteDevices: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Authenticate(t.Context(), made.Token, anna.From); !errors.Is(err, ErrUnauthorized) {
		t.Errorf("a token made by somebody who was deleted: %v", err)
	}
	if k, err := s.Key(t.Context(), Root(), forOthers.ID); err != nil || k.Revoked == nil {
		t.Errorf("a key made by somebody who was deleted: %+v, %v", k, err)
	}
	s.agrees()
}

// The devices of somebody who is suspended reach nothing, whatever the rules say, and
// stay reachable; those with tags act as their tags.
func TestSuspendedDevices(t *testing.T) {
	s := openSite(t)
	s.user(CreateUser{Name: "anna"})
	mine, hers := s.laptop("mine"), s.joined(CreateKey{User: "anna"}, "hers")
	cam := s.joined(CreateKey{User: "anna", Tags: []string{"camera"}}, "cam")
	all := []string{"user:admin", "user:anna", "tag:camera"}
	for _, c := range []struct {
		policy string
		at     *device
		before []string
	}{
		{``, hers, []string{"user:anna"}},
		{``, cam, []string{"user:anna"}},
		{`{"rules":[{"from":["*"],"to":["*"],"ports":["*"]}]}`, mine, all},
		{`{"rules":[{"from":["user:anna","user:admin"],"to":["*"],"ports":["*"]}]}`, mine, all[:2]},
		{`{"rules":[{"from":["*"],"to":["self"],"ports":["*"]}]}`, cam, []string{"user:anna"}},
		{`{"rules":[{"from":["tag:camera"],"to":["user:admin"],"ports":["*"]}]}`, mine, []string{"tag:camera"}},
	} {
		if err := s.SetPolicy(t.Context(), c.policy); err != nil {
			t.Fatal(err)
		}
		check := func(when string, suspended bool) {
			t.Helper()
			for _, word := range all {
				want := slices.Contains(c.before, word) && !(suspended && word == "user:anna")
				if got := s.lets(c.at, word); got != want {
					t.Errorf("%s, %s lets %s in: %v, by %s", when, c.at.name(), word, got, c.policy)
				}
			}
		}
		check("before", false)
		before, _ := s.index.versions(c.at.id)
		s.suspend("anna")
		check("suspended", true)
		if now, _ := s.index.versions(c.at.id); now.Config == before.Config {
			t.Error("nodes are not told to fetch their config")
		}
		if s.index.reaches(hers.id, mustNode(t, s, mine.id).Class) {
			t.Errorf("a device of somebody who is suspended sees another: %s", c.policy)
		}
		if c.policy != "" && strings.Contains(c.policy, `"to":["*"]`) && !s.index.reaches(mine.id, mustNode(t, s, hers.id).Class) {
			t.Error("it cannot be reached any more")
		}
		s.agrees()
		s.resume("anna")
		check("resumed", false)
	}
	if err := s.SetPolicy(t.Context(), `{"rules":[{"from":["*"],"to":["*"],"ports":["*"]}]}`); err != nil {
		t.Fatal(err)
	}
	s.suspend("anna")
	got, err := s.CanReach(t.Context(), Root(), AccessQuery{From: "anna", To: "mine:22"})
	if err != nil || got.Allowed || !strings.Contains(got.Why, "anna is suspended") {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := s.CanReach(t.Context(), Root(), AccessQuery{From: "cam", To: "mine:22"}); err != nil || !got.Allowed {
		t.Errorf("a device with tags: %+v, %v", got, err)
	}
}

// While rules have to name each person and each tag, those that come are named at once,
// also after the server was started again.
func TestNewWhileSuspended(t *testing.T) {
	s := openSite(t)
	s.user(CreateUser{Name: "anna"})
	mine := s.laptop("mine")
	if err := s.SetPolicy(t.Context(), `{"rules":[{"from":["*"],"to":["*"],"ports":["*"]}]}`); err != nil {
		t.Fatal(err)
	}
	s.suspend("anna")
	held := func() api.Version {
		v, _ := s.index.versions(mine.id)
		return v.Config
	}
	before := held()
	for _, c := range []struct {
		word string
		do   func()
	}{
		{"user:carl", func() { s.user(CreateUser{Name: "carl"}) }},
		{"tag:door", func() { s.joined(CreateKey{Tags: []string{"door"}}, "door") }},
	} {
		if s.lets(mine, c.word) {
			t.Fatalf("%s is let in before", c.word)
		}
		c.do()
		now := held()
		if !s.lets(mine, c.word) || now == before {
			t.Errorf("%s: let in %v, version %v then %v", c.word, s.lets(mine, c.word), before, now)
		}
		var n store.Network
		if err := s.store.Read(t.Context(), func(r *store.Reader) (err error) { n, err = r.Network(); return err }); err != nil || n.ConfigN != now.N {
			t.Errorf("%s: the database has change %d, memory %d, %v", c.word, n.ConfigN, now.N, err)
		}
		before = now
	}
	// One more with a tag that is named costs nobody anything.
	s.joined(CreateKey{Tags: []string{"door"}}, "door")
	if held() != before {
		t.Error("a tag that was there had everybody fetch the config")
	}
	s.agrees()
}

// Of many who at once take away all owners, one is left, who can sign in; and there is one
// whose devices are that nobody is named for.
func TestLastOwner(t *testing.T) {
	s := openSite(t)
	names := []string{firstUser}
	for i := range 10 {
		u, _ := s.user(CreateUser{Name: fmt.Sprint("o", i), Role: RoleOwner})
		names = append(names, u.Name)
	}
	role := RoleMember
	var wg sync.WaitGroup
	for i := range 100 {
		wg.Go(func() {
			name := names[i%len(names)]
			switch i % 3 {
			case 0:
				Do(t.Context(), s.Service, Root(), SuspendUser{name})
			case 1:
				Do(t.Context(), s.Service, Root(), DeleteUser{Name: name})
			case 2:
				Do(t.Context(), s.Service, Root(), EditUser{Name: name, Role: &role})
			}
		})
	}
	wg.Wait()
	users, err := s.Users(t.Context(), Root())
	if err != nil {
		t.Fatal(err)
	}
	owners, first := 0, 0
	for _, u := range users {
		if u.Role == string(RoleOwner) && u.Suspended == nil {
			owners++
		}
		if u.Owner {
			first++
			if u.Role != string(RoleOwner) || u.Suspended != nil {
				t.Errorf("%+v is whose devices are that nobody is named for", u)
			}
		}
	}
	if owners != 1 || first != 1 {
		t.Errorf("%d owners, %d that is first, of %+v", owners, first, users)
	}
	if d := s.joined(CreateKey{}, "pi"); mustNode(t, s, d.id).User == "" {
		t.Error("a device of nobody")
	}
	s.agrees()
}

// Nobody suspends, resumes or renames those who may do more; oneself nobody suspends.
func TestSuspendWhom(t *testing.T) {
	s := openSite(t)
	_, admin := s.user(CreateUser{Name: "anna", Role: RoleAdmin})
	s.user(CreateUser{Name: "ben", Role: RoleOwner})
	_, member := s.user(CreateUser{Name: "carl"})
	name := "x"
	admin.SignedIn = s.clock.Now()
	for _, c := range []struct {
		who  Actor
		do   Command[store.User]
		want error
	}{
		{admin, SuspendUser{"ben"}, ErrForbidden}, {admin, SuspendUser{"anna"}, ErrInvalid}, {admin, SuspendUser{"carl"}, nil},
		{admin, EditUser{Name: "ben", DisplayName: &name}, ErrForbidden}, {admin, EditUser{Name: "anna", DisplayName: &name}, nil},
		{admin, ResumeUser{"carl"}, nil}, {member, SuspendUser{"ben"}, ErrNotFound}, {member, SuspendUser{"carl"}, ErrForbidden}, {member, EditUser{Name: "carl", DisplayName: &name}, nil},
		{member, EditUser{Name: "anna", DisplayName: &name}, ErrNotFound},
	} {
		if _, err := Do(t.Context(), s.Service, c.who, c.do); !errors.Is(err, c.want) || c.want == nil && err != nil {
			t.Errorf("%s: %#v: %v, want %v", c.who.User, c.do, err, c.want)
		}
	}
	if _, err := Do(t.Context(), s.Service, admin, DeleteUser{Name: "ben"}); !errors.Is(err, ErrForbidden) {
		t.Errorf("an admin deletes an owner: %v", err)
	}
	// In the console, making an owner wants a recent sign-in.
	owner, role := s.owner(), RoleOwner
	if _, err := Do(t.Context(), s.Service, owner, EditUser{Name: "anna", Role: &role}); !errors.Is(err, ErrStale) {
		t.Errorf("an owner made by who signed in long ago: %v", err)
	}
	owner.SignedIn = s.clock.Now()
	if _, err := Do(t.Context(), s.Service, owner, EditUser{Name: "anna", Role: &role}); err != nil {
		t.Error(err)
	}
}

// A name is never given to another one; what people read is free.
func TestNamesOfPeople(t *testing.T) {
	s := openSite(t)
	s.user(CreateUser{Name: "anna", DisplayName: "Änna Ö. 🦊 李"})
	if err := s.DeleteUser(t.Context(), "anna"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.CreateUser(t.Context(), "anna"); !errors.Is(err, ErrTaken) || !strings.Contains(err.Error(), "certificates") {
		t.Errorf("a name of somebody else: %v", err)
	}
	if _, err := Do(t.Context(), s.Service, Actor{Via: ViaConsole}, SignInWithProvider{Who: Foreigner{Provider: "p", Issuer: "i", Subject: "s", Name: "anna", Admitted: true}, Session: NewSession{Hash: [32]byte{1}}}); err != nil {
		t.Fatal(err)
	}
	users, err := s.Users(t.Context(), Root())
	if err != nil || len(users) != 2 || users[1].Name != "anna-2" {
		t.Errorf("%+v, %v", users, err)
	}
	for _, name := range []string{"a\x00b", "a\nb", "\u202eevil", "a\u2066b", " a", "a ", strings.Repeat("x", maxDisplayName+1), "\xff", "a\x1b[1m"} {
		if _, err := Do(t.Context(), s.Service, Root(), CreateUser{Name: "x", DisplayName: name}); !errors.Is(err, ErrInvalid) {
			t.Errorf("%q as a display name: %v", name, err)
		}
	}
}

// Whose user is deleted has devices that another one gets, with new certificates, and keys
// that are useless; or both go.
func TestDeletePeople(t *testing.T) {
	s := openSite(t)
	s.user(CreateUser{Name: "anna"})
	_, ben := s.user(CreateUser{Name: "ben"})
	hers := s.joined(CreateKey{User: "anna"}, "hers")
	cam := s.joined(CreateKey{User: "anna", Tags: []string{"camera"}}, "cam")
	left := s.token(CreateKey{User: "anna", Reusable: true})
	if err := s.SetPolicy(t.Context(), `{"rules":[{"from":["user:anna"],"to":["self"],"ports":["*"]}],"tests":[{"src":"anna","accept":["cam:22"]}]}`); err != nil {
		t.Fatal(err)
	}
	if _, err := Do(t.Context(), s.Service, Root(), DeleteUser{Name: "anna"}); !errors.Is(err, ErrTaken) || !strings.Contains(err.Error(), "2 devices and 3 keys") {
		t.Errorf("somebody with devices: %v", err)
	}
	for _, c := range []DeleteUser{{Name: "anna", DevicesTo: "anna"}, {Name: "anna", DevicesTo: "ben", DeleteDevices: true}, {Name: "anna", DevicesTo: "nobody"}} {
		if _, err := Do(t.Context(), s.Service, Root(), c); err == nil {
			t.Errorf("%+v is done", c)
		}
	}
	out, err := Do(t.Context(), s.Service, Root(), DeleteUser{Name: "anna", DevicesTo: "ben"})
	if err != nil || out.Devices != 2 || out.Keys != 3 || len(out.Warnings) != 2 || !strings.Contains(out.Warnings[0], "a rule names anna") || !strings.Contains(out.Warnings[1], "test 1 names anna") {
		t.Fatalf("%+v, %v", out, err)
	}
	crl, err := s.auth.Roots.VerifyCRL(s.CRL())
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range []*device{hers, cam} {
		n := mustNode(t, s, d.id)
		if n.User != "ben" || n.UserID != ben.UserID {
			t.Errorf("%s belongs to %s", n.Name, n.User)
		}
		if !crl.Revoked(d.shown.SerialNumber) {
			t.Errorf("the certificate of %s from before is good", n.Name)
		}
	}
	if err := newDevice(t, s.Service).join(t, left, "late"); err == nil {
		t.Error("with a key of somebody who was deleted a device joined as somebody else's")
	}
	out, err = Do(t.Context(), s.Service, Root(), DeleteUser{Name: "ben", DeleteDevices: true})
	if err != nil || out.Devices != 2 || out.Keys != 3 {
		t.Fatalf("%+v, %v", out, err)
	}
	if all, _, _ := s.countFor(Root()); all != 0 {
		t.Errorf("%d devices are left", all)
	}
	s.agrees()
}

// Rules that name a group let in whoever is in it now, as nodes see them, whoever said so: the
// admins, or a provider at a sign-in; and the answers for admins agree.
func TestGroupsInRules(t *testing.T) {
	s := openSite(t)
	s.user(CreateUser{Name: "anna"})
	mine, hers := s.laptop("mine"), s.joined(CreateKey{User: "anna"}, "hers")
	for _, name := range []string{"family", "other"} {
		if _, err := Do(t.Context(), s.Service, Root(), CreateGroup{name}); err != nil {
			t.Fatal(err)
		}
	}
	const text = `{"rules":[{"from":["group:family","group:staff"],"to":["user:admin"],"ports":["tcp:22"]},{"from":["user:admin"],"to":["group:family"],"ports":["*"]},{"from":["group:nobody"],"to":["*"],"ports":["*"]}]}`
	checked, err := s.CheckPolicy(t.Context(), Root(), SetPolicy{Text: text})
	if err != nil || len(checked.Warnings) != 2 { // staff and nobody
		t.Errorf("%+v, %v", checked.Warnings, err)
	}
	if err := s.SetPolicy(t.Context(), text); err != nil {
		t.Fatal(err)
	}
	check := func(when string, in bool) {
		t.Helper()
		if got := s.lets(mine, "user:anna"); got != in {
			t.Errorf("%s: the node lets anna in: %v", when, got)
		}
		if got, err := s.CanReach(t.Context(), Root(), AccessQuery{From: "anna", To: "mine:22"}); err != nil || got.Allowed != in {
			t.Errorf("%s: %+v, %v", when, got, err)
		}
		if got := s.index.reaches(hers.id, mustNode(t, s, mine.id).Class); got != in {
			t.Errorf("%s: her device sees mine: %v", when, got)
		}
		s.agrees()
	}
	edit := func(e EditGroup) {
		t.Helper()
		if _, err := Do(t.Context(), s.Service, Root(), e); err != nil {
			t.Fatal(err)
		}
	}
	version := func() api.Version { v, _ := s.index.versions(mine.id); return v.Config }
	check("before", false)
	was := version()
	edit(EditGroup{Name: "other", Add: []string{"anna"}})
	if version() != was {
		t.Error("a group that no rule names has nodes fetch their config")
	}
	check("in another group", false)
	edit(EditGroup{Name: "family", Add: []string{"anna"}})
	if version() == was {
		t.Error("nodes are not told")
	}
	check("put in", true)
	if !s.lets(hers, "user:admin") {
		t.Error("a rule to a group")
	}
	if p, err := s.CheckPolicy(t.Context(), Root(), SetPolicy{Text: `{"rules":[]}`}); err != nil || len(p.Losses) == 0 {
		t.Errorf("who loses: %+v, %v", p, err)
	}
	s.suspend("anna")
	check("suspended", false)
	s.resume("anna")
	check("resumed", true)
	edit(EditGroup{Name: "family", Remove: []string{"anna"}})
	check("taken out", false)
	// Somebody who signs in elsewhere, with groups that are said there.
	comes := func(groups ...string) {
		t.Helper()
		who := Foreigner{Provider: "work", Issuer: "https://accounts.example.org", Subject: "a", Name: "carl", Admitted: true, Groups: groups}
		if _, err := Do(t.Context(), s.Service, Actor{Via: ViaConsole}, SignInWithProvider{Who: who, Session: NewSession{Hash: HashToken(NewToken())}}); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		groups []string
		in     bool
	}{{nil, false}, {[]string{"staff"}, true}, {nil, false}, {[]string{"family"}, false}} { // that one is made here
		comes(c.groups...)
		if got := s.lets(mine, "user:carl"); got != c.in {
			t.Errorf("in %v by a provider: let in %v", c.groups, got)
		}
		s.agrees()
	}
	comes("staff")
	for what, c := range map[string]Command[store.Group]{
		"changed": EditGroup{Name: "staff", Add: []string{"anna"}}, "deleted": DeleteGroup{"staff"},
	} {
		if _, err := Do(t.Context(), s.Service, Root(), c); !errors.Is(err, ErrInvalid) {
			t.Errorf("a provider's group is %s: %v", what, err)
		}
	}
	if _, err := Do(t.Context(), s.Service, Root(), CreateGroup{"staff"}); !errors.Is(err, ErrTaken) {
		t.Errorf("a group of a provider's name: %v", err)
	}
	edit(EditGroup{Name: "family", Add: []string{"anna"}})
	if _, err := Do(t.Context(), s.Service, Root(), DeleteGroup{"family"}); err != nil {
		t.Fatal(err)
	}
	check("the group deleted", false)
	if _, err := Do(t.Context(), s.Service, Root(), EditGroup{Name: "other", Add: []string{"anna", "nosuch"}}); !errors.Is(err, ErrNotFound) {
		t.Errorf("somebody who is not there: %v", err)
	}
}

// The groups of one person change together, or not at all, and leave one record.
func TestGroupsOfOnePerson(t *testing.T) {
	s := openSite(t)
	_, anna := s.user(CreateUser{Name: "anna"})
	_, admin := s.user(CreateUser{Name: "adam", Role: RoleAdmin})
	s.user(CreateUser{Name: "robot", Service: true})
	for _, g := range []string{"crew", "family", "staff"} {
		if _, err := Do(t.Context(), s.Service, Root(), CreateGroup{g}); err != nil {
			t.Fatal(err)
		}
	}
	who := Foreigner{Provider: "work", Issuer: "https://accounts.example.org", Subject: "o", Name: "olaf", Admitted: true, Groups: []string{"theirs"}}
	if _, err := Do(t.Context(), s.Service, Actor{Via: ViaConsole}, SignInWithProvider{Who: who, Session: NewSession{Hash: [32]byte{7}}}); err != nil {
		t.Fatal(err)
	}
	_, before := s.records(0)
	for _, c := range []struct {
		who  Actor
		edit EditUser
		want error
	}{
		{admin, EditUser{Name: "anna", AddGroups: []string{"staff", "crew"}}, nil},
		{admin, EditUser{Name: "anna", AddGroups: []string{"crew"}, RemoveGroups: []string{"family"}}, nil}, // is so already
		{admin, EditUser{Name: "anna", AddGroups: []string{"family", "nosuch"}, RemoveGroups: []string{"crew"}}, ErrNotFound},
		{admin, EditUser{Name: "anna", AddGroups: []string{"family", "theirs"}}, ErrInvalid}, // of a provider
		{admin, EditUser{Name: "robot", AddGroups: []string{"family"}}, ErrInvalid},
		{admin, EditUser{Name: firstUser, AddGroups: []string{"family"}}, ErrForbidden},
		{anna, EditUser{Name: "anna", AddGroups: []string{"family"}, DisplayName: pointer("Anna")}, ErrForbidden},
		{admin, EditUser{Name: "anna", AddGroups: []string{"family"}, RemoveGroups: []string{"crew"}, DisplayName: pointer("Anna")}, nil},
	} {
		if _, err := Do(t.Context(), s.Service, c.who, c.edit); !errors.Is(err, c.want) {
			t.Errorf("%s: %+v: %v", c.who.User, c.edit, err)
		}
	}
	s.agrees()
	got, _ := s.records(before)
	want := []string{
		`user.edit user anna by adam via console: {"groups":[],"kind":"person","name":"anna","role":"member"} -> {"groups":["crew","staff"],"kind":"person","name":"anna","role":"member"}`,
		`user.edit user anna by adam via console: {"groups":["crew","staff"],"kind":"person","name":"anna","role":"member"} -> {"display_name":"Anna","groups":["family","staff"],"kind":"person","name":"anna","role":"member"}`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("records:\n%s", strings.Join(got, "\n"))
	}
}
