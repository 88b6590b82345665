package ops

import (
	"errors"
	"fmt"
)

// ErrForbidden refuses an operation that the actor's role does not include, on something
// that the actor may see. For something that the actor may not see the error is
// ErrNotFound, as if it did not exist.
var ErrForbidden = errors.New("not allowed")

// reach says on which things a role may do an operation.
type reach int

const (
	none reach = iota
	own        // of what belongs to the actor's user
	all
)

// Operation is one row of the authorization matrix: which roles may do it. A device
// that joins has no role: its key authorizes it.
type Operation struct {
	Name string // as in the audit and the API: "device.rename"
	// Writes says that it changes something and leaves a record.
	Writes bool
	// Fresh says that people in the console must have signed in a moment ago.
	Fresh bool
	// weak says that it is open to an actor that proved less than its role demands (Actor.Weak).
	weak bool
	may  map[Role]reach
	via  []Via // beside people: ViaNode for itself, ViaSystem
}

// Operations is the authorization matrix. In words:
//
//   - An operator manages devices, join keys and requests of devices, and of people only the
//     own account: making an account gives rights. So an operator neither approves people
//     who wait nor sees who is in which group.
//   - An auditor reads everything but secrets, and changes nothing. Sessions, passkeys and
//     codes are seen by their person only; the audit says that they changed.
//   - An actor who is limited to tags sees what carries one of them, what is the actor's own,
//     what every device has to know, and settings (relays, DNS, policy, providers). People,
//     groups, identities, webhooks and the audit have no tags and belong to the whole
//     network: a limited auditor sees none of them (readsAll), and a limited operator
//     changes nothing that belongs to the network.
var Operations []*Operation

// op adds an operation to the matrix. The columns are owner, admin, operator, auditor, member.
func op(name string, writes bool, columns [5]reach, via ...Via) *Operation {
	o := &Operation{Name: name, Writes: writes, via: via, may: map[Role]reach{}}
	for i, r := range []Role{RoleOwner, RoleAdmin, RoleOperator, RoleAuditor, RoleMember} {
		o.may[r] = columns[i]
	}
	Operations = append(Operations, o)
	return o
}

const (
	reads  = false
	writes = true
)

var (
	everybody = [5]reach{all, all, all, all, own}
	noAuditor = [5]reach{all, all, all, none, own}
	seers     = [5]reach{all, all, all, all, none}
	admins    = [5]reach{all, all, none, none, none}
	nobody    = [5]reach{}
	oneself   = [5]reach{own, own, own, own, own}
)

var (
	opNetworkShow = op("network.show", reads, [5]reach{all, all, all, all, all})

	opDeviceRead    = op("device.read", reads, everybody)
	opDeviceTest    = op("device.test", reads, everybody)
	opDeviceRename  = op("device.rename", writes, noAuditor)
	opDeviceAssign  = op("device.assign", writes, noAuditor) // see Tx.mayAssign
	opDeviceReplace = op("device.replace", writes, noAuditor)
	opDeviceDelete  = op("device.delete", writes, noAuditor, ViaSystem)
	opDeviceDNS     = op("device.dns", writes, noAuditor)
	opDeviceSignIn  = op("device.sign_in", writes, oneself).fresh()
	opDeviceOverdue = op("device.overdue", writes, nobody, ViaSystem)
	opDeviceJoin    = op("device.join", writes, nobody, ViaNode)
	opDeviceRenew   = op("device.renew", writes, nobody, ViaNode)
	opDeviceLeave   = op("device.leave", writes, nobody, ViaNode)

	opRequestAsk     = op("request.ask", writes, nobody, ViaNode)
	opRequestRead    = op("request.read", reads, everybody) // a member only by the code
	opRequestApprove = op("request.approve", writes, noAuditor)
	opRequestDeny    = op("request.deny", writes, noAuditor)

	opKeyRead   = op("key.read", reads, everybody)
	opKeyCreate = op("key.create", writes, noAuditor, ViaSystem)
	opKeyRevoke = op("key.revoke", writes, noAuditor)

	opDNSRead   = op("dns.read", reads, seers)
	opDNSEdit   = op("dns.edit", writes, admins)
	opNamesFree = op("dns.names_end", writes, nobody, ViaSystem)

	opRelayRead   = op("relay.read", reads, seers)
	opRelayRemove = op("relay.remove", writes, admins)
	opRelayJoin   = op("relay.join", writes, nobody, ViaNode)
	opRelayUpdate = op("relay.update", writes, nobody, ViaNode)

	opReachRead = op("reach.read", reads, everybody)

	opPolicyRead   = op("policy.read", reads, seers)
	opPolicySet    = op("policy.set", writes, admins)
	opPolicyRevert = op("policy.revert", writes, admins)

	opCRLRecall = op("crl.recall", writes, nobody, ViaNode)

	opUserRead     = op("user.read", reads, [5]reach{all, all, own, all, own})
	opUserCreate   = op("user.create", writes, admins) // and edit, delete: see Tx.mayGrant
	opUserEdit     = op("user.edit", writes, admins)
	opUserDelete   = op("user.delete", writes, admins).fresh()
	opUserName     = op("user.name", writes, [5]reach{all, all, own, own, own}) // what it is called
	opUserSuspend  = op("user.suspend", writes, admins)
	opUserResume   = op("user.resume", writes, admins)
	opUserInvite   = op("user.invite", writes, admins) // see Tx.mayGrant
	opUserUninvite = op("user.uninvite", writes, admins)
	opGroupRead    = op("group.read", reads, [5]reach{all, all, none, all, none})
	opGroupCreate  = op("group.create", writes, admins)
	opGroupEdit    = op("group.edit", writes, admins)
	opGroupDelete  = op("group.delete", writes, admins)
	opTokenRead    = op("token.read", reads, [5]reach{all, all, own, all, own})
	opTokenCreate  = op("token.create", writes, admins).fresh() // see Tx.mayGrant; it outlives the session
	opTokenRevoke  = op("token.revoke", writes, [5]reach{all, all, own, none, own})
	opTokenUse     = op("token.use", writes, nobody, ViaSystem)

	opUserLink = op("user.link", writes, [5]reach{all}, ViaSystem).fresh()

	opSignIn   = op("session.create", writes, oneself)
	opSessions = op("session.read", reads, oneself).orWeak()
	opSignOut  = op("session.end", writes, oneself, ViaSystem).orWeak()
	opPassword = op("user.password", writes, oneself)

	opFactorRead    = op("factor.read", reads, oneself).orWeak()
	opFactorSet     = op("factor.set", writes, oneself).fresh().orWeak()
	opPasskeyCloned = op("passkey.cloned", writes, nobody, ViaSystem)
	opFactorReset   = op("factor.reset", writes, [5]reach{all}).fresh()

	opFactorProve    = op("factor.prove", writes, oneself).orWeak()
	opSessionExtend  = op("session.extend", writes, nobody, ViaSystem)
	opProviderRead   = op("oidc.read", reads, [5]reach{all, all, none, all, none})
	opProviderSet    = op("oidc.set", writes, [5]reach{all}).fresh()
	opIdentityRead   = op("identity.read", reads, [5]reach{all, all, none, all, none})
	opIdentityAsk    = op("identity.ask", writes, nobody, ViaSystem)
	opIdentityDecide = op("identity.decide", writes, admins).fresh()

	opSignInRead = op("sign-in.read", reads, [5]reach{all, all, all, all, all})
	opSignInSet  = op("sign-in.set", writes, [5]reach{all}, ViaSystem).fresh()

	opRefusals = op("audit.refusals", writes, nobody, ViaSystem)

	opBackup           = op("network.backup", reads, [5]reach{all}).fresh()
	opNetworkRestore   = op("network.restore", writes, nobody, ViaSystem)
	opNetworkConfigure = op("network.configure", writes, nobody, ViaSystem)

	opHookRead   = op("webhook.read", reads, [5]reach{all, all, none, all, none})
	opHookCreate = op("webhook.create", writes, admins)
	opHookEdit   = op("webhook.edit", writes, admins)
	opHookDelete = op("webhook.delete", writes, admins)
	opHookRotate = op("webhook.rotate", writes, admins)
	opHookTest   = op("webhook.test", writes, admins)
	opHookAllow  = op("webhook.allow", writes, [5]reach{all}) // targets that are otherwise not dialled
	opHookPause  = op("webhook.pause", writes, nobody, ViaSystem)

	opAuditRead      = op("audit.read", reads, [5]reach{all, all, none, all, none})
	opAuditConfigure = op("audit.configure", writes, [5]reach{all})
	opAuditTrim      = op("audit.trim", writes, [5]reach{all}, ViaSystem).fresh()
)

// target is what an operation is about.
type target struct {
	kind, id, name string
	owner          string   // id of the user that it belongs to, "" for the network's
	tags           []string // that it carries
}

// of reports whether something is the actor's account or part of it, which limits by tags
// do not apply to.
func (t target) of(a Actor) bool {
	return t.owner == a.UserID && (t.kind == "user" || t.kind == "token")
}

// authorize returns nil if an actor may do the operation on t.
func (o *Operation) authorize(a Actor, t target) error {
	switch a.Via {
	case ViaNode, ViaSystem:
		for _, v := range o.via {
			if v == a.Via {
				return nil
			}
		}
		return fmt.Errorf("%s: %w", o.Name, ErrForbidden)
	}
	if a.Weak && !o.weak {
		return fmt.Errorf("%s: %w", o.Name, ErrWeak)
	}
	r, refused := o.may[a.Role], fmt.Errorf("%s as %s: %w", o.Name, a.Role, ErrForbidden)
	switch {
	case t.owner == "" && (r != all || o.Writes && len(a.Tags) > 0): // the network's
		return refused
	case t.owner == "":
		return nil
	case !a.covers(t.tags) && !t.of(a), r == own && t.owner != a.UserID:
		return ErrNotFound
	case r == none:
		return refused
	}
	return nil
}

// asks returns nil if there may be anything on which an actor may do the operation.
func (o *Operation) asks(a Actor) error {
	if a.Weak && !o.weak {
		return fmt.Errorf("%s: %w", o.Name, ErrWeak)
	}
	if o.may[a.Role] == none {
		return fmt.Errorf("%s as %s: %w", o.Name, a.Role, ErrForbidden)
	}
	return nil
}

// readsAll returns nil if an actor may read what belongs to the whole network and has no
// tags. An actor who is limited to tags may not.
func (o *Operation) readsAll(a Actor) error {
	if len(a.Tags) > 0 {
		return fmt.Errorf("%s for some tags only: %w", o.Name, ErrForbidden)
	}
	return o.asks(a)
}

// ownerSeen is the id of the user whose things are all that an actor sees, "" for no such
// limit.
func (o *Operation) ownerSeen(a Actor) string {
	if o.may[a.Role] == own {
		return a.UserID
	}
	return ""
}
