package ops

import (
	"bytes"
	"cmp"
	"context"
	"crypto/x509"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"weft/coord/passkey"
	"weft/coord/store"
	"weft/dns"
	"weft/overlay/api"
	"weft/overlay/cert"
)

// faults makes one statement of the store's writer fail. It belongs to whoever waits
// for the writer.
type faults struct {
	in    int             // the statement that fails is so many away; 0: none
	query string          // that failed, "" while none has
	seen  map[string]bool // all queries
}

var errFault = errors.New("a fault of the disk")

func (f *faults) statement(query string) error {
	if f.seen != nil {
		f.seen[query] = true
	}
	if f.in > 0 {
		if f.in--; f.in == 0 {
			f.query = query
			return errFault
		}
	}
	return nil
}

// faulty is a network with something of everything.
type faulty struct {
	*site
	faults faults
	events <-chan Event

	admin                  Actor
	pi, cam, laptop, relay *device
	newcomer               *device      // has not joined
	one, relays            cert.Token   // not used yet
	key                    string       // id, not used yet
	session, other         [32]byte     // of the admin
	link                   [32]byte     // the admin's
	service                TokenCreated // a token of the service "robot"
	hook                   WebhookCreated
	newer                  []byte  // revocation list of a later time
	person                 *person // after withCodes
	code                   string  // of a device that asks, after asksIn
}

const passwordHash = "hash"

func newFaulty(t *testing.T) *faulty {
	t.Helper()
	f := &faulty{session: [32]byte{1}, other: [32]byte{2}}
	f.site = openSite(t, func(o *Options) { o.BeforeStatement = f.faults.statement })
	must := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	f.pi, f.cam, f.laptop = f.camera("pi"), f.camera("cam"), f.site.laptop("laptop")
	must(f.DeleteDevice(t.Context(), f.camera("gone").id))
	must(f.RenameDevice(t.Context(), f.cam.id, "hall"))
	yes := true
	must(f.SetDeviceDNS(t.Context(), f.cam.id, DeviceDNS{Wildcard: &yes}))
	must(f.EditDNS(t.Context(), DNSEdit{AddRecord: &NewRecord{DNSRecord: api.DNSRecord{Name: "www", Type: "A", Value: "192.0.2.1"}}}))
	must(f.CreateUser(t.Context(), "bob"))
	must(Do(t.Context(), f.Service, Root(), SetPolicy{Text: `{"rules":[]}`}))
	must(Do(t.Context(), f.Service, Root(), CreateUser{Name: "robot", Service: true}))
	var err error
	f.service, err = Do(t.Context(), f.Service, Root(), CreateToken{User: "robot"})
	must(nil, err)
	f.hook, err = Do(t.Context(), f.Service, Root(), CreateWebhook{URL: "https://192.0.2.1/"})
	must(nil, err)
	k, tok, err := f.CreateKey(t.Context(), CreateKey{})
	must(nil, err)
	f.key, f.one, f.newcomer = k.ID, tok, newDevice(t, f.Service)
	f.relay = newDevice(t, f.Service)
	must(f.relay.JoinRelay(t.Context(), f.relayRequest(f.relay, f.token(CreateKey{Relay: true}))))
	f.relays = f.token(CreateKey{Relay: true})
	link := func() [32]byte {
		path, err := f.LoginLink(t.Context(), firstUser)
		must(nil, err)
		return HashToken(strings.TrimPrefix(path, "/welcome?link="))
	}
	f.admin = f.owner()
	must(Do(t.Context(), f.Service, f.admin, UseLink{Link: link(), Password: passwordHash, Session: NewSession{Hash: f.session}}))
	must(Do(t.Context(), f.Service, f.admin, SignIn{Checked: passwordHash, Session: NewSession{Hash: f.other}}))
	f.link = link()
	leaf, err := x509.ParseCertificate(mustNode(t, f.site, f.pi.id).Certificate)
	must(nil, err)
	f.newer, err = f.auth.Network.SignCRL(f.index.info().CRLNumber+1000, []*big.Int{leaf.SerialNumber}, time.Time{}, f.clock.Now())
	must(nil, err)
	events, cancel, err := f.Service.Subscribe(t.Context(), Root(), Interest{Every: true})
	must(nil, err)
	t.Cleanup(cancel)
	f.events = events
	return f
}

func (f *faulty) relayRequest(d *device, tok cert.Token) api.RelayJoinRequest {
	f.t.Helper()
	csr, err := cert.NewCSR(d.key)
	if err != nil {
		f.t.Fatal(err)
	}
	return api.RelayJoinRequest{Protocol: api.Protocol, Secret: tok.Secret, CSR: csr, Name: "far", URLs: []string{"https://relay.example:8443"}}
}

// storedHook is a webhook as the database has it.
func (f *faulty) storedHook(id string) (w store.Webhook) {
	f.t.Helper()
	if err := f.store.Read(f.t.Context(), func(r *store.Reader) (err error) { w, err = r.Webhook(f.network, id); return err }); err != nil {
		f.t.Fatal(err)
	}
	return w
}

// as runs a command.
func as[R any](a func(*faulty) Actor, c func(*faulty) Command[R]) func(context.Context, *faulty) error {
	return func(ctx context.Context, f *faulty) error {
		_, err := Do(ctx, f.Service, a(f), c(f))
		return err
	}
}

func root(*faulty) Actor       { return Root() }
func ofServer(*faulty) Actor   { return System() }
func ofAdmin(f *faulty) Actor  { return f.admin }
func pointer[T any](v T) *T    { return &v }
func ofPerson(f *faulty) Actor { return f.person.actor }
func ofNobody(*faulty) Actor   { return Actor{Via: ViaConsole} }

func ofCarol(f *faulty) Actor {
	u, err := f.Login(f.t.Context(), "carol")
	if err != nil {
		f.t.Fatal(err)
	}
	return ConsoleActor(u, f.admin.From)
}

// carolInvited invites carol, whose link is in f.link.
func carolInvited(f *faulty) {
	f.link = f.invites(f.admin, InviteUser{Name: "carol"})
}

func carolsPasskey() *AddPasskey {
	return &AddPasskey{Key: passkey.Key{ID: []byte("carol's"), PublicKey: []byte("key")}, Domain: "example.org", Name: "phone"}
}

// ofFresh is the admin, who has just signed in.
func ofFresh(f *faulty) Actor {
	a := f.admin
	a.SignedIn = f.clock.Now()
	return a
}

// withCodes has bob sign in with codes, of which the next one can be used.
func withCodes(f *faulty) {
	u, err := f.Login(f.t.Context(), "bob")
	if err != nil {
		f.t.Fatal(err)
	}
	f.person = f.withCodes(ConsoleActor(u, f.admin.From), "bob's")
	f.clock.Add(time.Minute)
}

// bobHasAll gives bob devices, keys, a session, a link and a token that he made for others.
func bobHasAll(f *faulty) {
	withCodes(f)
	f.joined(CreateKey{User: "bob"}, "bobs")
	f.joined(CreateKey{User: "bob", Tags: []string{"device"}}, "bobs-cam")
	for _, do := range []func(context.Context, *faulty) error{
		as(root, func(*faulty) Command[store.User] { return EditUser{Name: "bob", Role: pointer(RoleAdmin)} }),
		as(ofPerson, func(*faulty) Command[TokenCreated] { return CreateToken{User: "robot"} }),
		as(ofPerson, func(*faulty) Command[KeyCreated] { return CreateKey{User: firstUser} }),
		as(root, func(*faulty) Command[string] { return CreateLink{"bob"} }),
		as(root, func(*faulty) Command[PolicyText] {
			return SetPolicy{Text: `{"rules":[{"from":["user:bob","*"],"to":["tag:device"],"ports":["*"]}]}`}
		}),
	} {
		if err := do(f.t.Context(), f); err != nil {
			f.t.Fatal(err)
		}
	}
}

// bobInGroup has a rule let in a group with bob in it.
func bobInGroup(f *faulty) {
	for _, do := range []func(context.Context, *faulty) error{
		as(root, func(*faulty) Command[store.Group] { return CreateGroup{"staff"} }),
		as(root, func(*faulty) Command[store.Group] { return CreateGroup{"family"} }),
		as(root, func(*faulty) Command[store.Group] { return CreateGroup{"crew"} }),
		as(root, func(*faulty) Command[store.Group] { return EditGroup{Name: "staff", Add: []string{"bob"}} }),
		as(root, func(*faulty) Command[PolicyText] {
			return SetPolicy{Text: `{"rules":[{"from":["group:staff"],"to":["tag:device"],"ports":["*"]}]}`}
		}),
	} {
		if err := do(f.t.Context(), f); err != nil {
			f.t.Fatal(err)
		}
	}
}

func bobSuspended(f *faulty) {
	bobHasAll(f)
	if _, err := Do(f.t.Context(), f.Service, Root(), SuspendUser{"bob"}); err != nil {
		f.t.Fatal(err)
	}
}

// withPasskey gives the admin one, that has counted to 5.
func withPasskey(f *faulty) {
	if err := addPasskey(f.t.Context(), f); err != nil {
		f.t.Fatal(err)
	}
}

var addPasskey = as(ofFresh, func(f *faulty) Command[store.Passkey] {
	return AddPasskey{Key: passkey.Key{ID: []byte("credential"), PublicKey: []byte("key"), Counter: 5}, Domain: "example.org", Name: "phone", Session: f.session}
})

func passkeyCounts(n uint32) func(context.Context, *faulty) error {
	return as(ofAdmin, func(f *faulty) Command[store.User] {
		return SignInWithPasskey{Proof: passkey.Proof{ID: []byte("credential"), Counter: n}, Session: NewSession{Hash: [32]byte{3}, Browser: [32]byte{4}}, Ends: f.other}
	})
}

// withProvider makes a provider, at which anna waits and ben has signed in.
func withProvider(f *faulty) {
	for _, do := range []func(context.Context, *faulty) error{
		as(ofFresh, func(*faulty) Command[store.Provider] {
			return SetProvider{ID: "work", New: true, Issuer: pointer("https://accounts.example.org"), ClientID: pointer("weft"), Secret: pointer("secret")}
		}),
		comes("anna", false), comes("ben", true),
	} {
		if err := do(f.t.Context(), f); err != nil {
			f.t.Fatal(err)
		}
	}
}

func foreigner(name string, admitted bool) Foreigner {
	return Foreigner{Provider: "work", Issuer: "https://accounts.example.org", Subject: name, Name: name, Groups: []string{"staff"}, Admitted: admitted, Refresh: "refresh"}
}

// comes has somebody come from a provider, in a session of that name.
func comes(name string, admitted bool) func(context.Context, *faulty) error {
	return as(ofNobody, func(*faulty) Command[store.User] {
		return SignInWithProvider{Who: foreigner(name, admitted), Session: NewSession{Hash: HashToken(name), Browser: [32]byte{4}}}
	})
}

// identity is the id of somebody at the provider.
func (f *faulty) identity(name string) string {
	f.t.Helper()
	list, err := f.Identities(f.t.Context(), Root())
	if err != nil {
		f.t.Fatal(err)
	}
	i := slices.IndexFunc(list, func(i store.Identity) bool { return i.Subject == name })
	if i < 0 {
		f.t.Fatalf("%s is not in %+v", name, list)
	}
	return list[i].ID
}

// asksIn has a device ask to be let in.
func asksIn(f *faulty) { _, f.code = f.site.asks("asker") }

// daysPass has people's devices be signed in every day, and that be due for all of them.
func daysPass(then func(*faulty)) func(*faulty) {
	return func(f *faulty) {
		if _, err := Do(f.t.Context(), f.Service, Root(), SetSignIn{DeviceDays: pointer(1)}); err != nil {
			f.t.Fatal(err)
		}
		f.clock.Add(26 * time.Hour)
		if then != nil {
			then(f)
		}
	}
}

// asksToSignIn has the laptop ask to be signed in again, overdue or not.
func asksToSignIn(overdue bool) func(*faulty) {
	return daysPass(func(f *faulty) {
		if overdue {
			f.lapse()
		} else {
			f.clock.Add(-3 * time.Hour)
		}
		f.code = f.signInAgain(f.laptop)
	})
}

func signIn(ctx context.Context, f *faulty) error {
	_, err := Do(ctx, f.Service, ofFresh(f), SignInDevice{Code: f.code})
	return err
}

func later(d time.Duration) func(*faulty) {
	return func(f *faulty) { f.clock.Add(d) }
}

// faultyCommand is a command, after what may have to be done before it.
type faultyCommand struct {
	op      *Operation
	prepare func(*faulty)
	do      func(context.Context, *faulty) error
}

// faultyCommands are all commands: at least one for each operation that changes
// something.
var faultyCommands = []faultyCommand{
	{opDeviceRename, nil, as(root, func(f *faulty) Command[store.Node] { return RenameDevice{f.pi.id, "kitchen"} })},
	{opDeviceRename, nil, as(root, func(f *faulty) Command[store.Node] {
		return EditDevice{ID: f.pi.id, Name: pointer("kitchen"), DeviceDNS: DeviceDNS{Wildcard: pointer(true), LANNames: "on"}}
	})},
	{opDeviceAssign, nil, as(root, func(f *faulty) Command[store.Node] {
		return AssignDevice{f.cam.id, pointer([]string{"door"}), pointer("bob")} // which answers for all names below its own
	})},
	{opDeviceAssign, nil, as(root, func(f *faulty) Command[store.Node] {
		return EditDevice{ID: f.pi.id, Name: pointer("kitchen"), Tags: pointer([]string{})}
	})},
	{opDeviceReplace, nil, as(root, func(f *faulty) Command[store.Node] { return ReplaceDevice{Old: f.cam.id, By: f.pi.id} })},
	{opDeviceDelete, nil, as(root, func(f *faulty) Command[store.Node] { return DeleteDevice{f.cam.id} })},
	{opDeviceDelete, nil, as(ofServer, func(f *faulty) Command[struct{}] { return expireDevices{[]cert.NodeID{f.pi.id, f.cam.id}} })},
	{opDeviceDNS, nil, as(root, func(f *faulty) Command[store.Node] {
		return SetDeviceDNS{f.laptop.id, DeviceDNS{Wildcard: pointer(true)}}
	})},
	{opDeviceDNS, nil, as(root, func(f *faulty) Command[store.Node] { return SetDeviceDNS{f.laptop.id, DeviceDNS{LANNames: "off"}} })},
	{opDeviceJoin, nil, func(ctx context.Context, f *faulty) error {
		_, err := f.newcomer.Join(ctx, f.newcomer.request(f.t, f.one, "new"))
		return err
	}},
	{opDeviceRenew, later(nodeLife * 70 / 100), func(ctx context.Context, f *faulty) error {
		_, err := f.pi.Renew(ctx, api.RenewRequest{Protocol: api.Protocol, CSR: f.pi.request(f.t, f.one, "").CSR})
		return err
	}},
	{opDeviceSignIn, asksToSignIn(false), signIn},
	{opDeviceSignIn, asksToSignIn(true), signIn},
	{opDeviceOverdue, daysPass(nil), as(ofServer, func(*faulty) Command[bool] { return lapse{} })},
	{opDeviceDelete, asksToSignIn(true), as(root, func(f *faulty) Command[store.Node] { return DeleteDevice{f.laptop.id} })},
	{opDeviceAssign, asksToSignIn(true), as(root, func(f *faulty) Command[store.Node] {
		return AssignDevice{f.laptop.id, pointer([]string{"camera"}), nil}
	})},
	{opDeviceAssign, asksToSignIn(true), as(root, func(f *faulty) Command[store.Node] {
		return AssignDevice{f.laptop.id, nil, pointer("bob")}
	})},
	{opDeviceLeave, nil, func(ctx context.Context, f *faulty) error { return f.laptop.Logout(ctx) }},
	{opRequestAsk, func(f *faulty) { f.site.asks("asker") }, func(ctx context.Context, f *faulty) error { return f.flushRefusals(ctx, true) }},
	{opRequestApprove, asksIn, func(ctx context.Context, f *faulty) error {
		_, err := Do(ctx, f.Service, f.admin, ApproveRequest{Code: f.code, Tags: []string{"camera"}})
		return err
	}},
	{opRequestDeny, asksIn, func(ctx context.Context, f *faulty) error {
		_, err := Do(ctx, f.Service, f.admin, DenyRequest{f.code})
		return err
	}},

	{opKeyCreate, nil, as(root, func(*faulty) Command[KeyCreated] { return CreateKey{Tags: []string{"device"}} })},
	{opKeyRevoke, nil, as(root, func(f *faulty) Command[store.Key] { return RevokeKey{f.key} })},

	{opDNSEdit, nil, as(root, func(*faulty) Command[struct{}] {
		return EditDNS{DNSEdit: DNSEdit{
			RemoveRecord: &RecordMatch{Name: "www"}, AddRecord: &NewRecord{DNSRecord: api.DNSRecord{Name: "app", Type: "A", Value: "192.0.2.2"}},
			AddRoute: &api.DNSRoute{Suffix: "corp.example", Nameservers: []api.Nameserver{{Address: "192.0.2.53"}}},
			Options:  map[string]string{"ttl": "9"}, RemoveAlias: pointer("cam"),
		}}
	})},
	{opNamesFree, later((store.DefaultAliasDays + 1) * 24 * time.Hour), as(ofServer, func(*faulty) Command[struct{}] { return endAliases{} })},

	{opRelayRemove, nil, as(root, func(*faulty) Command[store.Relay] { return RemoveRelay{"far"} })},
	{opRelayJoin, nil, func(ctx context.Context, f *faulty) error {
		_, err := f.newcomer.JoinRelay(ctx, f.relayRequest(f.newcomer, f.relays))
		return err
	}},
	{opRelayUpdate, nil, func(ctx context.Context, f *faulty) error {
		_, err := f.relay.SyncRelay(ctx, api.RelaySync{Protocol: api.Protocol, URLs: []string{"https://moved.example:8443"}})
		return err
	}},

	{opPolicySet, nil, as(root, func(*faulty) Command[PolicyText] {
		return SetPolicy{Text: `{"rules":[{"from":["*"],"to":["*"],"ports":["*"]}]}`}
	})},
	{opPolicyRevert, nil, as(root, func(*faulty) Command[PolicyText] { return RevertPolicy{Number: 0} })},
	{opAuditConfigure, nil, as(root, func(*faulty) Command[AuditSettings] {
		return EditAudit{KeepSeconds: pointer(int64(90 * 24 * 3600)), Report: []string{"camera"}}
	})},
	{opAuditTrim, later(48 * time.Hour), as(root, func(f *faulty) Command[AuditTrimmed] {
		return TrimAudit{Before: f.clock.Now().Add(-25 * time.Hour)}
	})},
	{opCRLRecall, nil, func(ctx context.Context, f *faulty) error { return f.Recall(ctx, f.cam.id.String(), f.newer) }},

	{opUserCreate, nil, as(root, func(*faulty) Command[store.User] { return CreateUser{Name: "carol"} })},
	{opHookCreate, nil, as(root, func(*faulty) Command[WebhookCreated] { return CreateWebhook{URL: "https://192.0.2.9/"} })},
	{opHookEdit, nil, as(root, func(f *faulty) Command[Webhook] { return EditWebhook{ID: f.hook.ID, Note: pointer("night shift")} })},
	{opHookAllow, nil, as(root, func(f *faulty) Command[Webhook] { return EditWebhook{ID: f.hook.ID, Allow: &[]string{"127.0.0.0/8"}} })},
	{opHookRotate, nil, as(root, func(f *faulty) Command[WebhookCreated] { return RotateWebhook{ID: f.hook.ID, Keep: time.Hour} })},
	{opHookTest, nil, as(root, func(f *faulty) Command[store.Webhook] { return testWebhook{f.hook.ID} })},
	{opHookPause, nil, as(ofServer, func(f *faulty) Command[struct{}] {
		w := f.storedHook(f.hook.ID)
		w.Attempts, w.Paused = 20, pointer(f.clock.Now())
		return pauseWebhook{w}
	})},
	{opHookDelete, nil, as(root, func(f *faulty) Command[Webhook] { return DeleteWebhook{f.hook.ID} })},
	{opUserEdit, nil, as(root, func(*faulty) Command[store.User] {
		return EditUser{Name: "bob", Role: pointer(RoleOperator), Tags: &[]string{"site"}}
	})},
	{opTokenCreate, nil, as(root, func(*faulty) Command[TokenCreated] { return CreateToken{User: "robot"} })},
	{opTokenRevoke, nil, as(root, func(f *faulty) Command[store.Token] { return RevokeToken{f.service.ID} })},
	{opTokenUse, nil, as(ofServer, func(f *faulty) Command[struct{}] {
		return noteTokenUses{map[string]tokenUse{f.service.ID: {f.clock.Now(), []string{"192.0.2.9"}}}}
	})},
	{opUserEdit, func(f *faulty) { f.site.user(CreateUser{Name: "boss", Role: RoleOwner}) }, as(root, func(*faulty) Command[store.User] { return EditUser{Name: firstUser, Role: pointer(RoleMember)} })},
	{opUserName, nil, as(root, func(*faulty) Command[store.User] { return EditUser{Name: "bob", DisplayName: pointer("Bobby")} })},
	{opUserSuspend, bobHasAll, as(root, func(*faulty) Command[store.User] { return SuspendUser{"bob"} })},
	{opUserResume, bobSuspended, as(root, func(*faulty) Command[store.User] { return ResumeUser{"bob"} })},
	{opUserCreate, bobSuspended, as(root, func(*faulty) Command[store.User] { return CreateUser{Name: "carol"} })},
	{opDeviceJoin, func(f *faulty) {
		bobSuspended(f)
		f.one = f.token(CreateKey{Tags: []string{"unseen"}})
	}, func(ctx context.Context, f *faulty) error {
		_, err := f.newcomer.Join(ctx, f.newcomer.request(f.t, f.one, "new"))
		return err
	}},
	{opUserInvite, nil, as(root, func(*faulty) Command[Invited] { return InviteUser{Name: "carol"} })},
	{opUserInvite, carolInvited, as(root, func(*faulty) Command[Invited] { return InviteUser{Name: "carol"} })},
	{opUserUninvite, carolInvited, as(root, func(*faulty) Command[store.User] { return RevokeInvitation{"carol"} })},
	{opSignIn, carolInvited, as(ofCarol, func(f *faulty) Command[store.User] {
		return UseLink{Link: f.link, Password: "x", Session: NewSession{Hash: [32]byte{3}}}
	})},
	{opSignIn, carolInvited, as(ofCarol, func(f *faulty) Command[store.User] {
		return UseLink{Link: f.link, Passkey: carolsPasskey(), Session: NewSession{Hash: [32]byte{3}, Browser: [32]byte{4}}}
	})},
	{opSignIn, func(f *faulty) { withProvider(f); carolInvited(f) }, as(ofNobody, func(f *faulty) Command[store.User] {
		return SignInWithProvider{Who: foreigner("carol-at-work", false), Link: f.link, Session: NewSession{Hash: [32]byte{3}, Browser: [32]byte{4}}, Ends: [32]byte{5}}
	})},
	{opGroupCreate, nil, as(root, func(*faulty) Command[store.Group] { return CreateGroup{"family"} })},
	{opGroupEdit, bobInGroup, as(root, func(*faulty) Command[store.Group] {
		return EditGroup{Name: "staff", Add: []string{firstUser}, Remove: []string{"bob"}}
	})},
	{opUserEdit, bobInGroup, as(root, func(*faulty) Command[store.User] {
		return EditUser{Name: "bob", AddGroups: []string{"family", "crew"}, RemoveGroups: []string{"staff"}, DisplayName: pointer("Bobby")}
	})},
	{opGroupDelete, bobInGroup, as(root, func(*faulty) Command[store.Group] { return DeleteGroup{"staff"} })},
	{opUserDelete, bobHasAll, as(root, func(*faulty) Command[UserDeleted] { return DeleteUser{Name: "bob", DevicesTo: firstUser} })},
	{opUserDelete, bobHasAll, as(root, func(*faulty) Command[UserDeleted] { return DeleteUser{Name: "bob", DeleteDevices: true} })},
	{opUserDelete, nil, as(root, func(*faulty) Command[UserDeleted] { return DeleteUser{Name: "bob"} })},
	{opUserLink, nil, as(root, func(*faulty) Command[string] { return CreateLink{"bob"} })},

	{opSignIn, nil, as(ofAdmin, func(f *faulty) Command[store.User] {
		return SignIn{Checked: passwordHash, Session: NewSession{Hash: [32]byte{3}}, Ends: f.other}
	})},
	{opSignIn, nil, as(ofAdmin, func(f *faulty) Command[store.User] {
		return UseLink{Link: f.link, Password: "another", Session: NewSession{Hash: [32]byte{3}}}
	})},
	{opSignOut, nil, as(ofAdmin, func(f *faulty) Command[struct{}] { return EndSession{f.session} })},
	{opSignOut, nil, as(ofAdmin, func(f *faulty) Command[struct{}] { return EndOtherSessions{f.session} })},
	{opPassword, nil, as(ofAdmin, func(f *faulty) Command[struct{}] {
		return ChangePassword{Checked: passwordHash, Password: "another", Session: NewSession{Hash: [32]byte{3}}, Ends: f.session}
	})},

	{opFactorSet, nil, as(ofFresh, func(f *faulty) Command[[]string] {
		secret := bytes.Repeat([]byte{7}, totpSecret256)
		return EnableTOTP{Secret: secret, Code: totpCode(secret, totpStep(f.clock.Now())), Session: f.session}
	})},
	{opFactorSet, withCodes, as(ofPerson, func(*faulty) Command[struct{}] { return DisableTOTP{} })},
	{opFactorSet, withCodes, as(ofPerson, func(*faulty) Command[[]string] { return NewRecoveryCodes{} })},
	{opFactorSet, nil, addPasskey},
	{opFactorSet, withPasskey, func(ctx context.Context, f *faulty) error {
		list, err := f.Factors(ctx, f.admin)
		if err == nil {
			_, err = Do(ctx, f.Service, ofFresh(f), RemovePasskey{list.Passkeys[0].ID})
		}
		return err
	}},
	{opFactorProve, withCodes, as(ofPerson, func(f *faulty) Command[struct{}] {
		return ProveCode{Code: f.person.code(0), Session: HashToken("bob's")}
	})},
	{opFactorReset, withCodes, as(root, func(*faulty) Command[store.User] { return ResetFactors{"bob"} })},
	{opSignIn, withPasskey, passkeyCounts(6)},
	{opPasskeyCloned, withPasskey, passkeyCounts(5)},
	{opSignIn, withCodes, func(_ context.Context, f *faulty) error { return f.person.signIn(f.person.codes[0], "again") }},
	{opSignInSet, nil, as(root, func(*faulty) Command[store.SignIn] { return SetSignIn{Demanded: pointer(true)} })},
	{opSignInSet, nil, as(root, func(*faulty) Command[store.SignIn] { return SetSignIn{DeviceDays: pointer(30)} })},
	{opSignInSet, asksToSignIn(true), as(root, func(*faulty) Command[store.SignIn] { return SetSignIn{DeviceDays: pointer(0)} })},

	{opProviderSet, nil, as(root, func(*faulty) Command[store.Provider] {
		return SetProvider{ID: "play", New: true, Issuer: pointer("https://play.example.org"), ClientID: pointer("weft")}
	})},
	{opProviderSet, withProvider, as(root, func(*faulty) Command[store.Provider] { return SetProvider{ID: "work", Title: pointer("Work")} })},
	{opProviderSet, withProvider, as(root, func(*faulty) Command[store.Provider] { return RemoveProvider{"work"} })},
	{opIdentityAsk, withProvider, comes("carl", false)},
	{opSignIn, withProvider, comes("dora", true)},
	{opSessionExtend, withProvider, as(ofServer, func(*faulty) Command[struct{}] {
		return ExtendSession{Hash: HashToken("ben"), Who: foreigner("ben", true)}
	})},
	{opIdentityDecide, withProvider, as(root, func(f *faulty) Command[store.Identity] { return ApproveIdentity{ID: f.identity("anna")} })},
	{opIdentityDecide, withProvider, as(root, func(f *faulty) Command[store.Identity] { return DenyIdentity{f.identity("ben")} })},

	{opRefusals, func(f *faulty) {
		f.Refused(f.admin, SignIn{}, store.User{ID: f.admin.UserID, Name: firstUser}, "wrong password")
	},
		func(ctx context.Context, f *faulty) error { return f.flushRefusals(ctx, true) }},
}

// notWhileOpen are done by a server that starts, or before it does: TestConfigureFails,
// TestRestore.
var notWhileOpen = []*Operation{opNetworkConfigure, opNetworkRestore}

// A command that fails at any statement, from the first to the commit, has done nothing:
// not in the database, nor in the audit, nor in memory, and nobody has been told of it. Done then,
// it is whole: memory is what memory is that reads the database anew, and the audit
// verifies.
func TestFaults(t *testing.T) {
	for _, o := range Operations {
		if o.Writes && !slices.ContainsFunc(faultyCommands, func(c faultyCommand) bool { return c.op == o }) && !slices.Contains(notWhileOpen, o) {
			t.Errorf("no command does %s here", o.Name)
		}
	}
	for i, c := range faultyCommands {
		t.Run(fmt.Sprintf("%s/%d", c.op.Name, i), func(t *testing.T) {
			t.Parallel()
			f := newFaulty(t)
			if c.prepare != nil {
				c.prepare(f)
			}
			stored, memory := f.stored(), f.memory()
			for n := 1; ; n++ {
				f.faults = faults{in: n, seen: map[string]bool{}}
				err := c.do(t.Context(), f)
				fault, seen := f.faults.query, f.faults.seen
				f.faults = faults{}
				if fault == "" {
					if err != nil {
						t.Fatalf("without a fault: %v", err)
					}
					if n < 6 {
						t.Errorf("it took %d statements, which is no command", n-1)
					}
					f.plans(seen)
					break
				}
				if err == nil {
					t.Errorf("it was done though statement %d failed: %s", n, fault)
					break
				}
				if now := f.stored(); now != stored {
					t.Fatalf("statement %d failed (%s), and the database changed:\n%s", n, fault, differ(stored, now))
				}
				if now := f.memory(); now != memory {
					t.Fatalf("statement %d failed (%s), and memory changed:\n%s", n, fault, differ(memory, now))
				}
			}
			if f.stored() == stored {
				t.Error("nothing was done in the end")
			}
			f.agrees()
		})
	}
}

// What a server is started with changes together with the record of it, or not at all.
func TestConfigureFails(t *testing.T) {
	s := openSite(t)
	dir := s.data
	s.Close()
	for n := 1; ; n++ {
		fault := faults{in: n}
		again, err := OpenService(t.Context(), Options{Data: dir, URLs: []string{"https://moved.example:8443"}, Now: s.clock.Now, BeforeStatement: fault.statement})
		if err == nil {
			again.Close()
		}
		at := openSite(t, func(o *Options) { o.Data, o.URLs = dir, nil })
		records, _ := at.records(0)
		recorded := slices.ContainsFunc(records, func(r string) bool { return strings.HasPrefix(r, "network.configure ") })
		if moved := at.Network().URLs[0] == "https://moved.example:8443"; moved != recorded {
			t.Errorf("statement %d failed (%s): moved %v, recorded %v", n, fault.query, moved, recorded)
		}
		at.agrees()
		at.Close()
		if fault.query == "" {
			if err != nil || !recorded {
				t.Errorf("without a fault: %v, recorded %v", err, recorded)
			}
			return
		}
	}
}

// agrees checks that memory is what the database says, and that the audit verifies.
func (s *site) agrees() {
	s.t.Helper()
	fresh := newIndex(s.index.info(), s.index.policy)
	var names store.DNS
	var signIn store.SignIn
	var revoked []store.Revoked
	err := s.store.Read(context.Background(), func(r *store.Reader) (err error) {
		if revoked, err = r.Revoked(s.network, s.now()); err != nil {
			return err
		}
		if _, err := r.VerifyAudit(s.network, []*x509.Certificate{s.auth.Network.Cert}, nil); err != nil {
			return err
		}
		if fresh.network, err = r.Network(); err != nil {
			return err
		}
		if names, err = r.DNS(s.network); err != nil {
			return err
		}
		if signIn, err = r.SignIn(s.network); err != nil {
			return err
		}
		return fresh.load(r)
	})
	if err != nil {
		s.t.Fatal(err)
	}
	same := func(what string, stored, held any) {
		s.t.Helper()
		if !reflect.DeepEqual(stored, held) {
			s.t.Errorf("%s: the database has %+v, memory %+v", what, stored, held)
		}
	}
	same("network", fresh.info(), s.index.info())
	same("names", names, *s.names.Load())
	same("what is demanded of who signs in", signIn, *s.Service.signIn.Load())
	if s.Service.revocations != nil {
		slices.SortFunc(revoked, bySerial)
		same("revoked certificates", revoked, s.Service.revocations.at(s.now()))
	}
	same("users", fresh.users, s.index.users)
	same("people", fresh.people, s.index.people)
	for tag := range fresh.tags { // memory may have more: see index.tags
		if !s.index.tags[tag] {
			s.t.Errorf("memory does not have the tag %s", tag)
		}
	}
	same("overdue devices", fresh.overdue, s.index.overdue)
	same("audience", fresh.audience, s.index.audience)
	same("relays", fresh.relays, s.index.allRelays())
	same("former names", fresh.aliases, s.index.aliases)
	same("wildcards", fresh.wildcards, s.index.wildcards)
	same("devices", slices.SortedFunc(maps.Keys(fresh.nodes), byBytes), slices.SortedFunc(maps.Keys(s.index.nodes), byBytes))
	for id := range fresh.nodes {
		a, _ := fresh.versions(id)
		b, _ := s.index.versions(id)
		same("versions of "+id.String(), a, b)
		same("wildcards that "+id.String()+" sees", fresh.visibleWildcards(id, dns.MaxWildcards), s.index.visibleWildcards(id, dns.MaxWildcards))
		same("what authorization knows of "+id.String(), fresh.targetOf(id), s.index.targetOf(id))
	}
}

func byBytes(a, b cert.NodeID) int { return bytes.Compare(a[:], b[:]) }

// memory is all that a service holds of its database, and whom it has told of changes.
func (f *faulty) memory() string {
	x, b := f.index, &strings.Builder{}
	for _, id := range slices.SortedFunc(maps.Keys(x.nodes), byBytes) {
		e := x.nodes[id]
		fmt.Fprintln(b, "device", id, e.class.key, e.configN, e.told, e.created, e.seen, e.ephemeral, e.overdue, e.classN, x.aliases[id], x.wildcards[id])
	}
	for _, c := range x.list {
		fmt.Fprintf(b, "class %s %+v %+v %v %d %d\n", c.key, c.classState, c.sight, c.lookup, c.switched, c.rulesN)
	}
	for _, id := range slices.Sorted(maps.Keys(x.users)) {
		fmt.Fprintln(b, "user", id, x.users[id], x.people[id], x.overdue[id])
	}
	fmt.Fprintf(b, "network %+v\nnames %+v\nsign-in %+v\nrelays %+v\ntold %v\nlist %+v\n", x.network, *f.names.Load(), *f.Service.signIn.Load(), x.relays, x.told, *f.Service.list.Load())
	fmt.Fprintln(b, "follows", f.followed, "brought", f.brought, "since", f.settlesSince, "revoked", f.revoked, "refusals", f.refusals.counts)
	fmt.Fprintln(b, "said", len(f.events), len(f.notify), f.told.notified, len(f.told.kicked), len(f.told.crls))
	return b.String()
}

// stored is all that is in the database.
func (f *faulty) stored() string {
	f.t.Helper()
	db, err := sql.Open("sqlite", "file:"+filepath.Join(f.data, "weft.db")+"?mode=ro")
	if err != nil {
		f.t.Fatal(err)
	}
	defer db.Close()
	query := func(q string, each func([]any)) {
		rows, err := db.Query(q)
		if err != nil {
			f.t.Fatal(err)
		}
		defer rows.Close()
		columns, _ := rows.Columns()
		for rows.Next() {
			row := make([]any, len(columns))
			for i := range row {
				row[i] = new(any)
			}
			if err := rows.Scan(row...); err != nil {
				f.t.Fatal(err)
			}
			for i, v := range row {
				row[i] = *v.(*any)
			}
			each(row)
		}
		if err := rows.Err(); err != nil {
			f.t.Fatal(err)
		}
	}
	var tables, lines []string
	query(`SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name`, func(row []any) { tables = append(tables, row[0].(string)) })
	for _, table := range tables {
		query("SELECT * FROM "+table, func(row []any) { lines = append(lines, fmt.Sprintf("%s %q", table, row)) })
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// plans checks that no query of a command reads all devices or their certificates.
func (f *faulty) plans(queries map[string]bool) {
	f.t.Helper()
	db, err := sql.Open("sqlite", "file:"+filepath.Join(f.data, "weft.db")+"?mode=ro")
	if err != nil {
		f.t.Fatal(err)
	}
	defer db.Close()
	for q := range queries {
		if !slices.Contains([]string{"SELECT", "UPDATE", "DELETE"}, strings.Fields(q)[0]) {
			continue
		}
		args := 0
		for strings.Contains(q, fmt.Sprint("$", args+1)) {
			args++
		}
		rows, err := db.Query("EXPLAIN QUERY PLAN "+q, make([]any, args)...)
		if err != nil {
			f.t.Errorf("%s: %v", q, err)
			continue
		}
		for rows.Next() {
			var id, parent, unused int
			var step string
			if err := rows.Scan(&id, &parent, &unused, &step); err != nil {
				f.t.Error(err)
			}
			if ofMany.MatchString(step) && !narrowed.MatchString(step) && !rare.MatchString(q) {
				f.t.Errorf("%s\nreads too much: %s", strings.Join(strings.Fields(q), " "), step)
			}
		}
		if err := rows.Err(); err != nil {
			f.t.Error(err)
		}
		rows.Close()
	}
}

var (
	ofMany = regexp.MustCompile(`^(SCAN|SEARCH) (issued|nodes|d|removed|aliases|former_names|changes|audit)\b`)
	// issued_revoked and issued_key are of revoked certificates only, nodes_overdue of devices
	// that have to be signed in again, and by nodes_signed_in are found those that are about to.
	narrowed = regexp.MustCompile(`\b(node_id|name|ipv4|key_id)=\?|\b(serial|until|n|seq|signed_in_at)[<>=]\?|INDEX (issued_(revoked|key)|nodes_user|nodes_overdue)\b`)
	// Setting a wildcard bounds how many there are; a user who has devices is not deleted;
	// the audit is trimmed from its beginning, so many records at a time.
	rare = regexp.MustCompile(`wildcard = 1|FROM audit WHERE network_id=\$1 ORDER BY seq LIMIT`)
)

// differ is what two texts have each alone, by lines.
func differ(a, b string) string {
	in := map[string]int{}
	for l := range strings.Lines(a) {
		in[l]--
	}
	for l := range strings.Lines(b) {
		in[l]++
	}
	var out []string
	for l, n := range in {
		if n != 0 {
			out = append(out, fmt.Sprintf("%+d %s", n, strings.TrimSpace(l)))
		}
	}
	slices.SortFunc(out, func(a, b string) int { return cmp.Compare(a[2:], b[2:]) })
	return strings.Join(out, "\n")
}
