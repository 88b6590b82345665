package ops

import (
	"bytes"
	"crypto/x509"
	"errors"
	"math/big"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"weft/coord/store"
	"weft/overlay/api"
	"weft/overlay/cert"
)

func (s *site) assign(a Actor, d *device, tags []string, user string) error {
	c := AssignDevice{ID: d.id}
	if tags != nil {
		c.Tags = &tags
	}
	if user != "" {
		c.User = &user
	}
	_, err := Do(s.t.Context(), s.Service, a, c)
	return err
}

func (s *site) tagged(name, tag string) *device {
	return s.joined(CreateKey{Tags: []string{tag}}, name)
}

func (s *site) mustAssign(d *device, tags []string, user string) {
	s.t.Helper()
	if err := s.assign(Root(), d, tags, user); err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) revocations() *cert.CRL {
	s.t.Helper()
	crl, err := s.auth.Roots.VerifyCRL(s.Service.CRL())
	if err != nil {
		s.t.Fatal(err)
	}
	return crl
}

func (s *site) certified(d *device) *cert.Node {
	s.t.Helper()
	n, err := s.auth.Roots.VerifyNode(mustNode(s.t, s, d.id).Certificate, s.clock.Now(), s.revocations())
	if err != nil {
		s.t.Fatal(err)
	}
	return n
}

// Other tags and another owner are in a new certificate; every earlier one is revoked
// with the same change, as superseded, until the device is deleted. The push of the list
// begins with the device and those that know it.
func TestAssign(t *testing.T) {
	s := openSite(t)
	if _, err := s.CreateUser(t.Context(), "bob"); err != nil {
		t.Fatal(err)
	}
	pi := s.tagged("pi", "camera")
	first := s.certified(pi)
	if _, err := s.RenameDevice(t.Context(), pi.id, "hall"); err != nil {
		t.Fatal(err)
	}
	second := s.certified(pi)
	s.mustAssign(pi, []string{"tag:door", "camera", "door"}, "bob")
	third := s.certified(pi)
	if third.User != "bob" || !slices.Equal(third.Tags, []string{"camera", "door"}) || third.Name != "hall" {
		t.Errorf("the certificate says %+v", third.Attributes)
	}
	crl := s.revocations()
	for i, n := range []*cert.Node{first, second} {
		if !crl.Superseded(n.Serial) {
			t.Errorf("certificate %d is still good", i+1)
		}
	}
	if crl.Len() != 2 {
		t.Errorf("%d certificates in the list", crl.Len())
	}
	if n := len(s.told.revoked); n == 0 || !slices.Equal(s.told.revoked[n-1], []cert.NodeID{pi.id}) || len(s.told.kicked) > 0 {
		t.Errorf("the relay is told of %v, and to drop %v", s.told.revoked, s.told.kicked)
	}
	var list []string
	records, _ := s.audited("device.assign", nil)
	for _, l := range records {
		list = append(list, string(l.Before)+string(l.After))
	}
	if want := []string{`{"tags":["camera"],"user":"admin"}{"tags":["camera","door"],"user":"bob"}`}; !slices.Equal(list, want) {
		t.Errorf("records %v, want %v", list, want)
	}
	// What is so already changes nothing.
	s.mustAssign(pi, []string{"door", "camera"}, "bob")
	if s.revocations().Len() != 2 {
		t.Error("the same once more made another certificate")
	}
	if _, err := s.DeleteDevice(t.Context(), pi.id); err != nil {
		t.Fatal(err)
	}
	crl = s.revocations()
	for i, n := range []*cert.Node{first, second, third} {
		if !crl.Revoked(n.Serial) || crl.Superseded(n.Serial) {
			t.Errorf("certificate %d of a deleted device is called superseded", i+1)
		}
	}
	for _, c := range []struct {
		tags []string
		user string
		want error
	}{{[]string{"a b"}, "", ErrInvalid}, {nil, "nobody", ErrNotFound}, {strings.Fields("a b c d e f g h i j k l m n o p q"), "", ErrInvalid}} {
		if err := s.assign(Root(), s.tagged("x", "camera"), c.tags, c.user); !errors.Is(err, c.want) {
			t.Errorf("%v %q: %v, want %v", c.tags, c.user, err, c.want)
		}
	}
}

// A device with a superseded certificate is asked to fetch another one, in a way that
// every version understands: the name in its config is not the one in its certificate.
// What it gets is in force, however often it asks.
func TestSupersededIsReplaced(t *testing.T) {
	s := openSite(t)
	pi := s.tagged("pi", "camera")
	name := func() string {
		t.Helper()
		c, err := pi.Config(t.Context(), api.Version{})
		if err != nil {
			t.Fatal(err)
		}
		return c.Self.FQDN
	}
	if got := name(); got != "pi.weft.internal" {
		t.Errorf("before: %q", got)
	}
	s.mustAssign(pi, []string{"door"}, "")
	if got := name(); got != "pi.weft.internal." {
		t.Errorf("with a superseded certificate: %q", got)
	}
	csr, _ := cert.NewCSR(pi.key)
	for range 2 {
		res, err := pi.Renew(t.Context(), api.RenewRequest{Protocol: api.Protocol, CSR: csr})
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(res.Certificate, mustNode(t, s, pi.id).Certificate) {
			t.Error("renewal gives another certificate than the one in force")
		}
		if pi.shown, err = x509.ParseCertificate(res.Certificate); err != nil {
			t.Fatal(err)
		}
	}
	if got := name(); got != "pi.weft.internal" {
		t.Errorf("after: %q", got)
	}
	if n := s.revocations().Len(); n != 1 {
		t.Errorf("%d in the list", n)
	}
}

// Who sees the device only as it was before loses it from the directory; who sees it only
// as it is now gets it; who sees both keeps it; and it gets a whole directory itself. So
// it is after a restart, too.
func TestDirectoryAfterAssign(t *testing.T) {
	s := openSite(t)
	for _, name := range []string{"bob", "eve"} {
		if _, err := s.CreateUser(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Do(t.Context(), s.Service, Root(), SetPolicy{Text: `{"rules":[
		{"from":["user:bob","user:admin"],"to":["tag:camera"],"ports":["*"]},
		{"from":["user:eve","user:admin"],"to":["tag:door"],"ports":["*"]},
		{"from":["tag:door"],"to":["tag:old"],"ports":["*"]}]}`}); err != nil {
		t.Fatal(err)
	}
	s.joined(CreateKey{Tags: []string{"old"}}, "old")
	pi := s.tagged("pi", "camera")
	join := func(user string) *device { return s.joined(CreateKey{User: user}, user) }
	was, is, both := join("bob"), join("eve"), s.laptop("both")
	holders := map[*device]*held{was: {}, is: {}, both: {}, pi: {}}
	check := func(when string, want map[*device]string) {
		t.Helper()
		for d, h := range holders {
			if h.follow(t, s, d); h.list() != want[d] {
				t.Errorf("%s: %s sees %q, want %q", when, mustNode(t, s, d.id).Name, h.list(), want[d])
			}
		}
	}
	check("at first", map[*device]string{was: "pi", is: "", both: "pi", pi: ""})
	before := holders[pi].version
	s.mustAssign(pi, []string{"door"}, "")
	after := map[*device]string{was: "", is: "pi", both: "pi", pi: "old"}
	check("afterwards", after)
	if holders[pi].version == before {
		t.Error("the device itself is not told of another directory")
	}
	dir := s.data
	s.Close()
	s = openSite(t, func(o *Options) { o.Data, o.Create = dir, false })
	for d, h := range holders {
		delete(holders, d)
		holders[d.at(s)] = h
	}
	for d := range holders {
		for old, want := range after {
			if old.id == d.id && holders[d].list() != want {
				t.Errorf("%s: %q, want %q", want, holders[d].list(), want)
			}
		}
		if held := s.Versions(d.id).Directory; held != holders[d].version {
			t.Errorf("a restart asks %s to fetch: %v, held %v", mustNode(t, s, d.id).Name, held, holders[d].version)
		}
	}
}

// A device's tags changed after the backup. The newer list does not delete it: it gets a
// certificate for what the backup says, and the one of before stays revoked.
func TestRecallOfASuperseded(t *testing.T) {
	s := openSite(t)
	laptop, pi := s.laptop("laptop"), s.tagged("pi", "camera")
	former := s.certified(pi)
	backup := s.backedUp("correct horse battery staple")
	s.mustAssign(pi, []string{"door"}, "")
	between := s.certified(pi)
	s.mustAssign(pi, []string{"hall"}, "")
	list := s.Service.CRL()
	s.Close()
	dir := filepath.Join(t.TempDir(), "data")
	if err := Restore(t.Context(), bytes.NewReader(backup), []byte("correct horse battery staple"), dir, s.clock.Now()); err != nil {
		t.Fatal(err)
	}
	again := openSite(t, func(o *Options) { o.Data, o.Create = dir, false })
	again.clock.Add(time.Hour)
	if err := laptop.at(again).SendCRL(t.Context(), list); err != nil {
		t.Fatal(err)
	}
	n := again.certified(pi)
	if !slices.Equal(n.Tags, []string{"camera"}) || n.Serial.Cmp(former.Serial) == 0 {
		t.Errorf("certified %v as %v", n.Tags, n.Serial)
	}
	for name, serial := range map[string]*big.Int{"of the backup": former.Serial, "of after it": between.Serial} {
		if !again.revocations().Superseded(serial) {
			t.Errorf("the certificate %s is not superseded", name)
		}
	}
	if c, err := pi.at(again).Config(t.Context(), api.Version{}); err != nil || c.Self.FQDN != "pi.weft.internal." {
		t.Errorf("it is not asked to fetch another one: %+v, %v", c, err)
	}
}

// Who is limited to tags moves devices among those: nothing by which more could be
// reached, and nothing that they could not undo.
func TestAssignWithinTags(t *testing.T) {
	s := openSite(t)
	if _, err := s.CreateUser(t.Context(), "bob"); err != nil {
		t.Fatal(err)
	}
	u, err := Do(t.Context(), s.Service, Root(), CreateUser{Name: "op", Role: RoleOperator, Tags: []string{"camera", "hall"}})
	if err != nil {
		t.Fatal(err)
	}
	op := Actor{UserID: u.ID, User: u.Name, Role: RoleOperator, Tags: u.Tags, Via: ViaAPI}
	for _, c := range []struct {
		before, after []string
		user          string
		want          error
	}{
		{[]string{"camera"}, []string{"hall"}, "", nil},
		{[]string{"camera"}, []string{"camera", "hall"}, "", nil},
		{[]string{"camera", "door"}, []string{"door", "hall"}, "", nil},
		{[]string{"camera"}, nil, "bob", nil},
		{[]string{"camera"}, []string{"camera", "door"}, "", ErrForbidden},
		{[]string{"camera", "door"}, []string{"camera"}, "", ErrForbidden},
		{[]string{"camera"}, []string{}, "", ErrForbidden},
		{[]string{"camera", "door"}, []string{"door"}, "", ErrForbidden},
		{[]string{"camera", "door"}, nil, "bob", ErrForbidden},
		{[]string{"door"}, []string{"camera"}, "", ErrNotFound},
		{nil, []string{"camera"}, "", ErrNotFound},
	} {
		d := s.joined(CreateKey{Tags: c.before}, "d")
		if err := s.assign(op, d, c.after, c.user); !errors.Is(err, c.want) {
			t.Errorf("%v to %v of %q: %v, want %v", c.before, c.after, c.user, err, c.want)
		}
		if crl := s.revocations(); c.want != nil && crl.Revoked(d.shown.SerialNumber) {
			t.Errorf("%v to %v: refused, and revoked nevertheless", c.before, c.after)
		}
	}
}

// A hundred changes at once end in one state, in which exactly one certificate is in
// force. There is a bound to how many one device puts into the list, and renames, which
// its owner may do, do not use it up.
func TestAssignOften(t *testing.T) {
	s := openSite(t)
	pi := s.tagged("pi", "camera")
	for i := range maxRenames {
		if _, err := s.RenameDevice(t.Context(), pi.id, "pi-"+string(rune('a'+i))); err != nil {
			t.Fatal(err)
		}
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	done := 0
	for i := range 100 {
		wg.Go(func() {
			err := s.assign(Root(), pi, []string{"t" + string(rune('a'+i%26)) + string(rune('a'+i/26))}, "")
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				done++
			} else if !errors.Is(err, ErrTooOften) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if done != maxMoves {
		t.Errorf("%d changes, want %d", done, maxMoves)
	}
	var held, good int
	if err := s.store.Read(t.Context(), func(r *store.Reader) (err error) {
		held, err = r.Unexpired(s.network, pi.id, s.clock.Now())
		revoked, rerr := r.Revoked(s.network, s.clock.Now())
		good = held - len(revoked)
		return errors.Join(err, rerr)
	}); err != nil {
		t.Fatal(err)
	}
	if n := s.certified(pi); good != 1 || !slices.Equal(n.Tags, mustNode(t, s, pi.id).Tags) {
		t.Errorf("%d of %d certificates are in force; the last says %v, the device has %v", good, held, n.Tags, mustNode(t, s, pi.id).Tags)
	}
	s.clock.Add(moveSpan + time.Second)
	s.mustAssign(pi, []string{"door"}, "")
}

// Consoles that no longer may see a device hear that it is gone.
func TestAssignIsHeardOf(t *testing.T) {
	s := openSite(t)
	bob, err := s.CreateUser(t.Context(), "bob")
	if err != nil {
		t.Fatal(err)
	}
	pi := s.tagged("pi", "camera")
	events := func(u store.User) <-chan Event {
		return s.hears(ConsoleActor(u, s.owner().From), Interest{Every: true})
	}
	admin, err := s.Login(t.Context(), "admin")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Do(t.Context(), s.Service, Root(), EditUser{Name: "bob", Role: pointer(RoleMember)}); err != nil {
		t.Fatal(err)
	}
	bob.Role = string(RoleMember)
	ofAdmin, ofBob := events(admin), events(bob)
	s.mustAssign(pi, nil, "bob")
	s.mustAssign(pi, nil, "admin")
	next := func(ch <-chan Event) EventKind {
		select {
		case e := <-ch:
			return e.Kind
		case <-t.Context().Done():
			return ""
		}
	}
	if a, b := next(ofAdmin), next(ofBob); a != EventRenamed || b != EventRenamed {
		t.Errorf("the owner hears %q, bob %q", a, b)
	}
	if a, b := next(ofAdmin), next(ofBob); a != EventRenamed || b != EventDeleted {
		t.Errorf("then the owner hears %q, bob %q", a, b)
	}
}
