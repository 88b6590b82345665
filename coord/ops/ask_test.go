package ops

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"weft/coord/store"
	"weft/overlay/api"
	"weft/overlay/api/client"
	"weft/overlay/cert"
)

func approve(t *testing.T, s *site, a Actor, code string) (store.Node, error) {
	t.Helper()
	return Do(t.Context(), s.Service, a, ApproveRequest{Code: code})
}

func wantState(t *testing.T, d *device, state string) *api.Asked {
	t.Helper()
	res, err := d.PollAsk(t.Context(), api.Poll{})
	if err != nil || res.State != state || (res.Join != nil) != (state == api.AskApproved) {
		t.Fatalf("%+v, %v, want %s", res, err, state)
	}
	return res
}

// A device asks, the person who has its code sees it and lets it in, and it is that
// person's: the answer has its certificate and configuration, as that to a token.
func TestApprove(t *testing.T) {
	s := openSite(t)
	alice := s.member("alice")
	s.laptop("notebook")
	d, code := s.asks("Notebook")
	r, err := s.Request(t.Context(), alice, strings.ToLower(strings.ReplaceAll(code, "-", " ")))
	if err != nil || r.Hostname != "Notebook" || r.OS != "linux/amd64" || r.From != "192.0.2.1" || r.Name != "notebook-1" || r.State != api.AskWaiting {
		t.Errorf("%+v, %v", r, err)
	}
	if res := wantState(t, d, api.AskWaiting); res.Code != "" || res.Server != s.Pins().Server || res.Network != s.Pins().Network || !res.Expires.Equal(s.clock.Now().Add(api.AskLife)) {
		t.Errorf("%+v", res)
	}
	_, before := s.records(0)
	n, err := approve(t, s, alice, code)
	if err != nil || n.ID != d.id || n.User != "alice" || n.Name != r.Name {
		t.Fatalf("%+v, %v", n, err)
	}
	res := wantState(t, d, api.AskApproved)
	leaf, err := cert.ParseNode(s.network, res.Join.Certificate)
	if err != nil || leaf.ID != d.id || leaf.User != "alice" || res.Join.Config.Self.Name != n.Name {
		t.Errorf("%+v, %v", leaf, err)
	}
	records, _ := s.records(before)
	if len(records) != 2 || !strings.HasPrefix(records[0], "request.approve request Notebook by alice via console:") || !strings.Contains(records[0], `"from":"192.0.2.1"`) ||
		!strings.HasPrefix(records[1], "device.join device notebook-1 by alice via console:") {
		t.Errorf("%q", records)
	}
	if strings.Contains(fmt.Sprint(records), code) || strings.Contains(s.log.String(), code) {
		t.Error("the code is in a record or in the log")
	}
	// Asking again tells the device what it is, and makes no other.
	again, err := d.Ask(t.Context(), d.ask(t, "other"))
	if err != nil || again.State != api.AskApproved || again.Join.Config.Self.Name != n.Name || again.Code != "" {
		t.Errorf("%+v, %v", again, err)
	}
	if _, err := approve(t, s, s.owner(), code); !errors.Is(err, ErrTaken) || !strings.Contains(err.Error(), "by alice") {
		t.Errorf("a second approval: %v", err)
	}
	if list, err := s.Requests(t.Context(), Root()); err != nil || len(list) != 0 {
		t.Errorf("%+v, %v", list, err)
	}
}

// It can be given to another person, or carry tags, by those who may make a key for that.
func TestApproveFor(t *testing.T) {
	s := openSite(t)
	alice, bob := s.member("alice"), s.member("bob")
	operator, err := Do(t.Context(), s.Service, Root(), EditUser{Name: "bob", Role: pointer(RoleOperator), Tags: &[]string{"camera"}})
	if err != nil {
		t.Fatal(err)
	}
	narrow := ConsoleActor(operator, bob.From)
	if err := s.SetPolicy(t.Context(), `{"tagOwners":{"tag:lab":["user:alice"]},"rules":[]}`); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		who  Actor
		ApproveRequest
		want error
		user string
	}{
		{"another person's", Root(), ApproveRequest{User: "alice"}, nil, "alice"},
		{"with a tag", Root(), ApproveRequest{Tags: []string{"tag:camera"}}, nil, firstUser},
		{"with a tag, by a member", alice, ApproveRequest{Tags: []string{"camera"}}, ErrForbidden, ""},
		{"another person's, by a member", alice, ApproveRequest{User: "bob"}, ErrNotFound, ""},
		{"nobody's", Root(), ApproveRequest{User: "nobody"}, ErrNotFound, ""},
		{"with no tag", narrow, ApproveRequest{}, ErrForbidden, ""},
		{"with another's tag", narrow, ApproveRequest{Tags: []string{"camera", "door"}}, ErrForbidden, ""},
		{"with the own tag", narrow, ApproveRequest{Tags: []string{"camera"}}, nil, "bob"},
		{"with a tag, by a member", alice, ApproveRequest{Tags: []string{"camera"}}, ErrForbidden, ""},
		{"with a tag of the own, by a member", alice, ApproveRequest{Tags: []string{"lab"}}, nil, "alice"},
		{"with no word", Root(), ApproveRequest{Tags: []string{"a b"}}, ErrInvalid, ""},
		{"by a device", Actor{Via: ViaNode}, ApproveRequest{}, ErrForbidden, ""},
	} {
		d, code := s.asks("x")
		c.Code = code
		n, err := Do(t.Context(), s.Service, c.who, c.ApproveRequest)
		if !errors.Is(err, c.want) || n.User != c.user {
			t.Errorf("%s: %+v, %v", c.name, n, err)
		}
		if err != nil {
			wantState(t, d, api.AskWaiting)
		}
		if err := d.EndAsk(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// Of people who decide at the same moment one does, and the device is what that one said.
func TestDecideInParallel(t *testing.T) {
	s := openSite(t)
	var people []Actor
	for i := range 10 {
		people = append(people, s.member(fmt.Sprint("p", i)))
	}
	for range 10 {
		d, code := s.asks("x")
		errs, denied := make([]error, len(people)), make([]error, len(people))
		var wg sync.WaitGroup
		for i, p := range people {
			wg.Go(func() { _, errs[i] = Do(context.Background(), s.Service, p, ApproveRequest{Code: code}) })
			wg.Go(func() { _, denied[i] = Do(context.Background(), s.Service, p, DenyRequest{code}) })
		}
		wg.Wait()
		by := ""
		refused := false
		for i, p := range people {
			switch {
			case errs[i] == nil && by == "":
				by = p.User
			case !errors.Is(errs[i], ErrTaken):
				t.Fatalf("%s approves: %v", p.User, errs[i])
			}
			if denied[i] == nil {
				refused = true
			} else if !errors.Is(denied[i], ErrTaken) {
				t.Fatalf("%s denies: %v", p.User, denied[i])
			}
		}
		if refused == (by != "") {
			t.Fatalf("refused %v, and let in by %q", refused, by)
		}
		if refused {
			wantState(t, d, api.AskDenied)
		} else if res := wantState(t, d, api.AskApproved); mustNode(t, s, d.id).User != by || res.Join.Config.Self.Name == "" {
			t.Fatalf("let in by %s, it is of %s", by, mustNode(t, s, d.id).User)
		}
	}
}

// A code is good for ten minutes, until the device withdraws or asks again, and as long as
// the server runs; then nothing leads to the device, and the device hears so.
func TestAskEnds(t *testing.T) {
	for name, end := range map[string]func(s *site, d *device){
		"expired":   func(s *site, d *device) { s.clock.Add(api.AskLife) },
		"set back":  func(s *site, d *device) { s.clock.Add(-2 * api.AskLife) },
		"withdrawn": func(s *site, d *device) { d.EndAsk(s.t.Context()) },
	} {
		s := openSite(t)
		d, code := s.asks("x")
		s.clock.Add(api.AskLife - time.Second)
		wantState(t, d, api.AskWaiting)
		s.clock.Add(time.Second - api.AskLife)
		end(s, d)
		wantState(t, d, api.AskUnknown)
		if _, err := approve(t, s, Root(), code); !errors.Is(err, ErrNotFound) {
			t.Errorf("%s: %v", name, err)
		}
	}
	s := openSite(t)
	d, code := s.asks("x")
	again, err := d.Ask(t.Context(), d.ask(t, "x"))
	if err != nil || again.Code == code {
		t.Fatalf("%+v, %v", again, err)
	}
	if _, err := approve(t, s, Root(), code); !errors.Is(err, ErrNotFound) {
		t.Errorf("the code before: %v", err)
	}
	if _, err := approve(t, openSite(t), Root(), again.Code); !errors.Is(err, ErrNotFound) {
		t.Errorf("a code of another network: %v", err)
	}
	// The server is restarted: one that waits has to ask again, one that was let in is.
	in, code := s.asks("in")
	if _, err := approve(t, s, Root(), code); err != nil {
		t.Fatal(err)
	}
	s.Close()
	reopened := openSite(t, func(o *Options) { o.Data, o.Create = filepath.Clean(s.data), false })
	for _, x := range []struct {
		d     *device
		state string
	}{{d, api.AskUnknown}, {in, api.AskApproved}} {
		x.d.Client = client.New(&direct{api: reopened.API(), leaf: func() *x509.Certificate { return x.d.shown }}, nil)
		wantState(t, x.d, x.state)
	}
}

// Denied, by its code or by its id.
func TestDeny(t *testing.T) {
	s := openSite(t)
	alice := s.member("alice")
	d, code := s.asks("x")
	if _, err := Do(t.Context(), s.Service, alice, DenyRequest{code}); err != nil {
		t.Fatal(err)
	}
	wantState(t, d, api.AskDenied)
	if _, err := approve(t, s, Root(), code); !errors.Is(err, ErrTaken) || !strings.Contains(err.Error(), "refused already, by alice") {
		t.Errorf("%v", err)
	}
	d, _ = s.asks("y")
	list, err := s.Requests(t.Context(), s.owner())
	if err != nil || len(list) != 1 || list[0].Hostname != "y" {
		t.Fatalf("%+v, %v", list, err)
	}
	if list, err := s.Requests(t.Context(), alice); err != nil || len(list) != 0 {
		t.Errorf("a member sees %+v, %v", list, err)
	}
	if _, err := Do(t.Context(), s.Service, alice, DenyRequest{list[0].ID}); !errors.Is(err, ErrForbidden) {
		t.Errorf("a member, by the id: %v", err)
	}
	_, before := s.records(0)
	if _, err := Do(t.Context(), s.Service, s.owner(), DenyRequest{list[0].ID}); err != nil {
		t.Fatal(err)
	}
	wantState(t, d, api.AskDenied)
	if records, _ := s.records(before); len(records) != 1 || !strings.HasPrefix(records[0], "request.deny request y by admin via console:") {
		t.Errorf("%q", records)
	}
}

// Who guesses a thousand codes a second, as one or as several people, from one or many
// addresses, with the table full, may try few, and finds none. It keeps nobody else out,
// and a code of the right kind is not the only thing that counts.
func TestGuessingAsks(t *testing.T) {
	s := openSite(t)
	for i := range maxAsks {
		from := netip.AddrFrom4([4]byte{203, byte(i >> 8), byte(i), 1})
		if s.requests.add(ask{newcomer: newcomer{caller: caller{id: cert.NodeID{byte(i), byte(i >> 8), 1}}}, from: from}, s.clock.Now()) == "" {
			t.Fatal("no room")
		}
	}
	mallory := s.member("mallory")
	tried := 0
	for i := range 60 * 1000 {
		if i%1000 == 0 {
			s.clock.Add(time.Second)
		}
		mallory.From = netip.AddrFrom4([4]byte{198, 51, byte(i >> 8), byte(i)})
		_, err := s.Request(t.Context(), mallory, newCode())
		switch {
		case errors.Is(err, ErrNotFound):
			tried++
		case !errors.Is(err, ErrTooOften):
			t.Fatalf("guess %d: %v", i, err)
		}
	}
	if tried == 0 || tried > 6 {
		t.Errorf("%d codes were tried in a minute", tried)
	}
	if _, err := Do(t.Context(), s.Service, mallory, DenyRequest{newCode()}); !errors.Is(err, ErrTooOften) {
		t.Errorf("by denying: %v", err)
	}
	// Many people in one place.
	tried = 0
	for i := range 40 {
		p := s.member(fmt.Sprint("p", i))
		for range 5 {
			if _, err := s.Request(t.Context(), p, newCode()); errors.Is(err, ErrNotFound) {
				tried++
			}
		}
	}
	if tried > int(tryLimitFrom.Burst)+1 {
		t.Errorf("%d codes were tried from one address", tried)
	}
	// Somebody elsewhere mistypes some, and a letter too few, and is let go on.
	alice := s.member("alice")
	alice.From = netip.MustParseAddr("198.18.0.1")
	s.clock.Add(2 * api.AskLife)
	_, code := s.asks("x")
	for range 4 {
		if _, err := s.Request(t.Context(), alice, newCode()); !errors.Is(err, ErrNotFound) {
			t.Fatal(err)
		}
		if _, err := s.Request(t.Context(), alice, "BCDFG-HJK"); !errors.Is(err, ErrInvalid) {
			t.Fatal(err)
		}
	}
	for range 20 {
		if _, err := s.Request(t.Context(), alice, code); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := approve(t, s, alice, code); err != nil {
		t.Error(err)
	}
}

// Codes are of the symbols that they should be, and no two are alike.
func TestAskCodes(t *testing.T) {
	seen := map[string]bool{}
	for range 5000 {
		c := newCode()
		hash, ok := hashAsk(c)
		if len(c) != 11 || c[5] != '-' || !ok || seen[c] {
			t.Fatalf("%q", c)
		}
		if same, ok := hashAsk(" " + strings.ToLower(c[:5]) + c[6:] + "\n"); !ok || same != hash {
			t.Fatalf("%q typed otherwise", c)
		}
		seen[c] = true
	}
	for _, c := range []string{"", "BCDFG", "BCDFG-HJKLA", "BCDFG-HJKL0", "BCDFG-HJKLMN", strings.Repeat("-", 100) + "BCDFGHJKLM", "BCDFG‑HJKLM\x00"} {
		if _, ok := hashAsk(c); ok {
			t.Errorf("%q is a code", c)
		}
	}
}

// Whoever floods the table drives out nobody else's request: not from one address, not
// from many; and what one address can enter is little.
func TestFloodOfAsks(t *testing.T) {
	now := newClock().Now()
	n := 0
	add := func(r *asks, from string) bool {
		n++
		id := cert.NodeID{byte(n), byte(n >> 8), byte(n >> 16)}
		return r.add(ask{newcomer: newcomer{caller: caller{id: id}}, from: netip.MustParseAddr(from)}, now) != ""
	}
	mine := func(r *asks) cert.NodeID {
		if !add(r, "192.0.2.1") {
			t.Fatal("no room for the first")
		}
		return cert.NodeID{byte(n), byte(n >> 8), byte(n >> 16)}
	}
	r := newAsks()
	me := mine(r)
	entered := 0
	for range 2 * maxAsks {
		if add(r, "198.51.100.1") {
			entered++
		}
	}
	if entered != maxAsksOf {
		t.Errorf("one address entered %d", entered)
	}
	// A /64 is one address.
	entered = 0
	for i := range 100 {
		if add(r, fmt.Sprintf("2001:db8::%x", i+1)) {
			entered++
		}
	}
	if entered != maxAsksOf {
		t.Errorf("a /64 entered %d", entered)
	}
	for i := range 3 * maxAsks {
		add(r, fmt.Sprintf("203.0.%d.%d", i/100, i%100))
	}
	if r.of(me, now).state != api.AskWaiting || len(r.byNode) > maxAsks || len(r.byCode) != len(r.byNode) {
		t.Errorf("mine is %q, %d entries, %d codes", r.of(me, now).state, len(r.byNode), len(r.byCode))
	}
	// Few addresses fill it, each with as much as it can: a newcomer has room, and takes it
	// from those.
	r = newAsks()
	me = mine(r)
	for i := range 2 * maxAsks {
		add(r, fmt.Sprintf("203.0.113.%d", i/maxAsksOf))
	}
	if len(r.byNode) != maxAsks {
		t.Fatalf("%d entries", len(r.byNode))
	}
	other := mine(r) // of the same address
	if !add(r, "192.0.2.77") || r.of(me, now).state == "" || r.of(other, now).state == "" || len(r.byNode) != maxAsks {
		t.Errorf("%d entries", len(r.byNode))
	}
	// All end after a while.
	if now = now.Add(api.AskLife); len(r.all(now)) != 0 || len(r.byNode)+len(r.byCode) != 0 {
		t.Errorf("%d entries are left", len(r.byNode))
	}
}

// One address asks so often, and no more; what it asked is in the audit as one record.
func TestAskingTooOften(t *testing.T) {
	s := openSite(t)
	_, before := s.records(0)
	d := newDevice(t, s.Service)
	asked := 0
	for range 100 {
		_, err := d.Ask(t.Context(), d.ask(t, "x"))
		var refused *api.Error
		switch {
		case err == nil:
			asked++
		case !errors.As(err, &refused) || refused.Code != api.CodeTooMany:
			t.Fatal(err)
		}
	}
	if asked != int(askLimit.Burst) {
		t.Errorf("it asked %d times", asked)
	}
	s.clock.Add(time.Minute)
	if err := s.flushRefusals(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	records, _ := s.records(before)
	if len(records) != 1 || !strings.HasPrefix(records[0], "request.ask") {
		t.Errorf("%q", records)
	}
	// A key that the connection does not have is refused.
	s.clock.Add(time.Minute)
	_, err := d.Ask(t.Context(), newDevice(t, s.Service).ask(t, "x"))
	wantCode(t, err, 401, api.CodeUnauthorized)
}
