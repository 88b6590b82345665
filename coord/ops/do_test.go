package ops

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"weft/coord/audit"
	"weft/coord/store"
	"weft/overlay/api"
	"weft/overlay/cert"
)

// records are those of the audit from seq on, as "op target: before -> after".
func (s *site) records(after uint64) (lines []string, last uint64) {
	s.t.Helper()
	err := s.store.Read(context.Background(), func(r *store.Reader) error {
		return r.EachAudit(s.network, store.AuditFilter{Oldest: true}, func(rec audit.Record, _ audit.Hash) error {
			if last = rec.Seq; rec.Seq > after {
				if rec.Via == audit.Node && rec.From != "192.0.2.1" { // httptest's
					s.t.Errorf("%s of a node came from %q", rec.Op, rec.From)
				}
				lines = append(lines, fmt.Sprintf("%s %s %s by %s via %s: %s -> %s", rec.Op, rec.Kind, rec.Name, rec.User, rec.Via, rec.Before, rec.After))
			}
			return nil
		})
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return lines, last
}

// What is done leaves one record that says who did it and what became of it; what
// changes nothing leaves none, and what is refused neither.
func TestRecords(t *testing.T) {
	s := openSite(t)
	pi, laptop := s.camera("pi"), s.laptop("laptop")
	alice, err := s.CreateUser(t.Context(), "alice")
	if err != nil {
		t.Fatal(err)
	}
	key, _, err := s.CreateKey(t.Context(), CreateKey{Note: "garage"})
	if err != nil {
		t.Fatal(err)
	}
	yes := true
	old, spare := s.camera("old"), s.camera("spare")
	member := Actor{UserID: alice.ID, User: "alice", Role: RoleMember, Via: ViaConsole}
	for _, c := range []struct {
		name string
		do   func() error
		err  error
		want string
	}{
		{"rename", func() error { _, err := s.RenameDevice(t.Context(), pi.id, "Hall"); return err }, nil,
			`device.rename device hall by root via cli: {"name":"pi"} -> {"name":"hall"}`},
		{"same name", func() error { _, err := s.RenameDevice(t.Context(), pi.id, "hall"); return err }, nil, ""},
		{"taken name", func() error { _, err := s.RenameDevice(t.Context(), pi.id, "laptop"); return err }, ErrTaken, ""},
		{"of others", func() error { _, err := Do(t.Context(), s.Service, member, RenameDevice{pi.id, "mine"}); return err }, ErrNotFound, ""},
		{"of nobody", func() error { _, err := s.RenameDevice(t.Context(), cert.NodeID{1}, "x"); return err }, ErrNotFound, ""},
		{"wildcard", func() error { _, err := s.SetDeviceDNS(t.Context(), pi.id, DeviceDNS{Wildcard: &yes}); return err }, nil,
			`device.dns device hall by root via cli: {"lan_names":"default","wildcard":false} -> {"lan_names":"default","wildcard":true}`},
		{"record", func() error {
			_, err := s.EditDNS(t.Context(), DNSEdit{AddRecord: &NewRecord{DNSRecord: api.DNSRecord{Name: "www", Type: "A", Value: "192.0.2.1"}}})
			return err
		}, nil, `dns.edit dns  by root via cli:  -> {"add_record":{"name":"www","outside":false,"shadow":false,"ttl":0,"type":"A","value":"192.0.2.1"}}`},
		{"edit by a member", func() error { _, err := Do(t.Context(), s.Service, member, EditDNS{}); return err }, ErrForbidden, ""},
		{"revoke", func() error { return s.RevokeKey(t.Context(), key.ID) }, nil, `key.revoke key garage by root via cli:  -> `},
		{"revoke again", func() error { return s.RevokeKey(t.Context(), key.ID) }, nil, ""},
		{"policy", func() error { return s.SetPolicy(t.Context(), `{"rules":[]}`) }, nil, `policy.set policy  by root via cli: {"number":0,"text":""} -> {"number":1,"text":"{\"rules\":[]}"}`},
		{"same policy", func() error { return s.SetPolicy(t.Context(), `{"rules":[]}`) }, nil, ""},
		{"link", func() error { _, err := s.LoginLink(t.Context(), "alice"); return err }, nil, `user.link user alice by root via cli:  -> `},
		{"link by a member", func() error { _, err := Do(t.Context(), s.Service, member, CreateLink{}); return err }, ErrForbidden, ""},
		{"leave", func() error { return laptop.Logout(t.Context()) }, nil, `device.leave device laptop by ` + laptop.id.String() + ` via node: {"ephemeral":false,`},
		{"replace", func() error { _, err := s.ReplaceDevice(t.Context(), old.id, spare.id); return err }, nil,
			`device.replace device old by root via cli: {"name":"spare"} -> {"name":"old","replaces":"` + old.id.String() + `"}`},
		{"delete", func() error { _, err := s.DeleteDevice(t.Context(), pi.id); return err }, nil, `device.delete device hall by root via cli: {"ephemeral":false,`},
	} {
		_, before := s.records(0)
		if err := c.do(); !errors.Is(err, c.err) {
			t.Errorf("%s: %v, want %v", c.name, err, c.err)
		}
		got, _ := s.records(before)
		if c.want == "" && len(got) > 0 || c.want != "" && (len(got) != 1 || !strings.HasPrefix(got[0], c.want)) {
			t.Errorf("%s left %q, want %q", c.name, got, c.want)
		}
	}
	err = s.store.Read(t.Context(), func(r *store.Reader) error {
		_, err := r.VerifyAudit(s.network, []*x509.Certificate{s.auth.Network.Cert}, nil)
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// The authorization matrix, as it is meant. An operation that is not here fails.
func TestMatrix(t *testing.T) {
	want := `
network.show     all   all   all   all   all
device.read      all   all   all   all   own
device.test      all   all   all   all   own
device.rename    all   all   all   -     own
device.assign    all   all   all   -     own
device.replace   all   all   all   -     own
device.delete    all   all   all   -     own
device.dns       all   all   all   -     own
device.sign_in   own   own   own   own   own
device.overdue   -     -     -     -     -
device.join      -     -     -     -     -
device.renew     -     -     -     -     -
device.leave     -     -     -     -     -
request.ask      -     -     -     -     -
request.read     all   all   all   all   own
request.approve  all   all   all   -     own
request.deny     all   all   all   -     own
key.read         all   all   all   all   own
key.create       all   all   all   -     own
key.revoke       all   all   all   -     own
dns.read         all   all   all   all   -
dns.edit         all   all   -     -     -
dns.names_end    -     -     -     -     -
relay.read       all   all   all   all   -
relay.remove     all   all   -     -     -
relay.join       -     -     -     -     -
relay.update     -     -     -     -     -
reach.read       all   all   all   all   own
policy.read      all   all   all   all   -
policy.set       all   all   -     -     -
policy.revert    all   all   -     -     -
crl.recall       -     -     -     -     -
user.read        all   all   own   all   own
user.create      all   all   -     -     -
user.edit        all   all   -     -     -
user.delete      all   all   -     -     -
user.name        all   all   own   own   own
user.suspend     all   all   -     -     -
user.resume      all   all   -     -     -
user.invite      all   all   -     -     -
user.uninvite    all   all   -     -     -
group.read       all   all   -     all   -
group.create     all   all   -     -     -
group.edit       all   all   -     -     -
group.delete     all   all   -     -     -
token.read       all   all   own   all   own
token.create     all   all   -     -     -
token.revoke     all   all   own   -     own
token.use        -     -     -     -     -
user.link        all   -     -     -     -
session.create   own   own   own   own   own
session.read     own   own   own   own   own
session.end      own   own   own   own   own
user.password    own   own   own   own   own
factor.read      own   own   own   own   own
factor.set       own   own   own   own   own
passkey.cloned   -     -     -     -     -
factor.reset     all   -     -     -     -
factor.prove     own   own   own   own   own
session.extend   -     -     -     -     -
oidc.read        all   all   -     all   -
oidc.set         all   -     -     -     -
identity.read    all   all   -     all   -
identity.ask     -     -     -     -     -
identity.decide  all   all   -     -     -
sign-in.read     all   all   all   all   all
sign-in.set      all   -     -     -     -
webhook.read     all   all   -     all   -
webhook.create   all   all   -     -     -
webhook.edit     all   all   -     -     -
webhook.delete   all   all   -     -     -
webhook.rotate   all   all   -     -     -
webhook.test     all   all   -     -     -
webhook.allow    all   -     -     -     -
webhook.pause    -     -     -     -     -
audit.read       all   all   -     all   -
audit.configure  all   -     -     -     -
audit.trim       all   -     -     -     -
audit.refusals   -     -     -     -     -
network.backup   all   -     -     -     -
network.restore    -   -     -     -     -
network.configure  -   -     -     -     -`
	roles := []Role{RoleOwner, RoleAdmin, RoleOperator, RoleAuditor, RoleMember}
	words := map[reach]string{none: "-", own: "own", all: "all"}
	named := map[string]string{}
	for line := range strings.Lines(strings.TrimSpace(want)) {
		f := strings.Fields(line)
		named[f[0]] = strings.Join(f[1:], " ")
	}
	for _, o := range Operations {
		var got []string
		for _, r := range roles {
			got = append(got, words[o.may[r]])
		}
		if text := strings.Join(got, " "); text != named[o.Name] {
			t.Errorf("%s: %s, want %q", o.Name, text, named[o.Name])
		}
		delete(named, o.Name)
		// And what that comes to, for what belongs to the actor, to somebody else, and
		// to the network.
		for i, r := range roles {
			a := Actor{UserID: "me", Role: r, Via: ViaAPI}
			may := o.may[roles[i]]
			for _, c := range []struct {
				t    target
				want bool
			}{
				{target{owner: "me"}, may != none}, {target{owner: "you"}, may == all}, {target{}, may == all},
			} {
				if err := o.authorize(a, c.t); (err == nil) != c.want {
					t.Errorf("%s by %s of %q: %v", o.Name, r, c.t.owner, err)
				}
			}
			a.Tags = []string{"camera"}
			for _, c := range []struct {
				t    target
				want bool
			}{
				{target{owner: "you", tags: []string{"camera", "hall"}}, may == all}, {target{owner: "me", tags: []string{"door"}}, false}, {target{}, may == all && !o.Writes},
			} {
				if err := o.authorize(a, c.t); (err == nil) != c.want {
					t.Errorf("%s by %s for cameras of %+v: %v", o.Name, r, c.t, err)
				}
			}
		}
		for _, v := range []Via{ViaNode, ViaSystem} {
			if err := o.authorize(Actor{Via: v}, target{}); (err == nil) != slices.Contains(o.via, v) {
				t.Errorf("%s via %s: %v", o.Name, v, err)
			}
		}
	}
	for name := range named {
		t.Errorf("there is no operation %s", name)
	}
	var nobody Actor
	for _, o := range Operations {
		if err := o.authorize(nobody, target{owner: ""}); err == nil {
			t.Errorf("%s by nobody", o.Name)
		}
	}
}

// A certificate that is renewed leaves what others remember of names as it is, and a
// rename costs one certificate and one round of nudges.
func TestNamesVersion(t *testing.T) {
	s := openSite(t)
	pi := s.camera("pi")
	certificates := func() int { return s.certificates(pi.id) }
	drain := func() (nudged int) {
		for {
			select {
			case <-s.notify:
				nudged++
			default:
				return nudged
			}
		}
	}
	s.clock.Add(s.life * 70 / 100)
	drain()
	names, dir := s.index.namesVersion(), s.index.info().N
	csr, err := cert.NewCSR(pi.key)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := pi.Renew(t.Context(), api.RenewRequest{Protocol: api.Protocol, CSR: csr}); err != nil {
		t.Fatal(err)
	}
	if now := s.index.namesVersion(); now != names || s.index.info().N == dir {
		t.Errorf("a renewal: names %v, were %v; change %d, was %d", now, names, s.index.info().N, dir)
	}
	drain()
	before := certificates()
	if _, err := s.RenameDevice(t.Context(), pi.id, "hall"); err != nil {
		t.Fatal(err)
	}
	if now := s.index.namesVersion(); now.N <= names.N {
		t.Errorf("a rename: names %v, were %v", now, names)
	}
	// The device sees another name in its config, and asks for its certificate.
	if _, err := pi.Renew(t.Context(), api.RenewRequest{Protocol: api.Protocol, CSR: csr}); err != nil {
		t.Fatal(err)
	}
	if n, nudged := certificates()-before, drain(); n != 1 || nudged != 1 {
		t.Errorf("a rename cost %d certificates and %d rounds of nudges", n, nudged)
	}
}

// Whatever the order in which things happen, memory that followed the changes holds
// what memory holds that reads the database anew.
func TestFollow(t *testing.T) {
	s := openSite(t)
	pi, cam, laptop := s.camera("pi"), s.camera("cam"), s.laptop("laptop")
	yes, no := true, false
	bob, err := s.CreateUser(t.Context(), "bob")
	if err != nil {
		t.Fatal(err)
	}
	s.joined(CreateKey{UserID: bob.ID}, "bobs")
	for _, do := range []func() error{
		func() error {
			_, err := s.SetDeviceDNS(t.Context(), pi.id, DeviceDNS{Wildcard: &yes, LANNames: "on"})
			return err
		},
		func() error { _, err := s.RenameDevice(t.Context(), pi.id, "hall"); return err },
		func() error { _, err := s.RenameDevice(t.Context(), cam.id, "door"); return err },
		func() error { _, err := s.DeleteDevice(t.Context(), cam.id); return err },
		func() error { _, err := s.SetDeviceDNS(t.Context(), laptop.id, DeviceDNS{Wildcard: &yes}); return err },
		func() error { _, err := s.SetDeviceDNS(t.Context(), laptop.id, DeviceDNS{Wildcard: &no}); return err },
		func() error {
			_, err := s.EditDNS(t.Context(), DNSEdit{AddRecord: &NewRecord{DNSRecord: api.DNSRecord{Name: "www", Type: "A", Value: "192.0.2.1"}}})
			return err
		},
		func() error { gone := "pi"; _, err := s.EditDNS(t.Context(), DNSEdit{RemoveAlias: &gone}); return err },
		func() error { return s.SetPolicy(t.Context(), `{"rules":[{"from":["*"],"to":["*"],"ports":["*"]}]}`) },
	} {
		if err := do(); err != nil {
			t.Fatal(err)
		}
	}
	s.agrees()
	if s.index.users[bob.ID] != "bob" || len(s.names.Load().Records) != 1 {
		t.Errorf("users %v, names %+v", s.index.users, s.names.Load())
	}
}

// Every name of a role and a way is one of the audit.
func TestActorWords(t *testing.T) {
	r := record{actor: Actor{Via: ViaSystem}, op: "device.delete", at: time.Unix(1, 0)}
	for _, via := range []Via{ViaConsole, ViaAPI, ViaCLI, ViaNode, ViaSystem} {
		r.actor.Via = via
		row, err := r.row()
		if err != nil {
			t.Fatal(err)
		}
		row.Seq = 1
		row.Clean()
		if _, err := row.Encode(nil); err != nil {
			t.Errorf("%s: %v", via, err)
		}
	}
}
