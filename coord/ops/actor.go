package ops

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"weft/coord/store"
)

// Role is what a person or a service may do in a network.
type Role string

// The roles, from the owner, who may do everything, to the member, who may do only
// what concerns his own devices.
const (
	RoleOwner    Role = "owner"
	RoleAdmin    Role = "admin"    // everything but what makes users owners
	RoleOperator Role = "operator" // devices and keys of everybody
	RoleAuditor  Role = "auditor"  // reads everything, changes nothing
	RoleMember   Role = "member"   // its own devices and keys
)

// Via says how a request for an operation reached the server.
type Via string

// The values of Via.
const (
	ViaConsole Via = "console"
	ViaAPI     Via = "api"
	ViaCLI     Via = "cli"    // whoever has the data directory
	ViaNode    Via = "node"   // a device, or a relay, for itself
	ViaSystem  Via = "system" // the server by itself
)

// Actor is who asks for an operation. The zero value may do nothing. If UserID is set,
// Role and Tags are those that the user had when the request arrived. A command reads
// them again from the user's row inside its transaction, so a right that was taken away
// in between no longer counts.
type Actor struct {
	UserID string // "" for none
	User   string // its name, or that of the device
	Token  string // id of the token that it came with, "" for none
	Role   Role
	// Tags, if any, limit the role to devices and keys that carry one of them.
	Tags []string
	Via  Via
	// From is the address that the request came from; invalid for requests from this
	// machine.
	From netip.Addr
	// SignedIn is when the person in the console last signed in; zero for others.
	SignedIn time.Time
	// Weak says that it proved less than the network demands of its role: it may only
	// see to that.
	Weak bool
}

// May reports whether an actor may do an operation, by its name in Operations, to what
// belongs to the whole network: so that pages offer nothing that would be refused.
func (a Actor) May(operation string) bool {
	return operationNamed(operation).authorize(a, target{}) == nil
}

// MaySome is May for something at all, which may be the actor's own only.
func (a Actor) MaySome(operation string) bool { return operationNamed(operation).asks(a) == nil }

// operationNamed panics if there is none of that name: a page's mistake, and tests draw them
// all.
func operationNamed(name string) *Operation {
	for _, o := range Operations {
		if o.Name == name {
			return o
		}
	}
	panic("no operation " + name)
}

// actorOf returns the actor for a user.
func actorOf(u store.User, via Via, from netip.Addr) Actor {
	return Actor{UserID: u.ID, User: u.Name, Role: Role(u.Role), Tags: u.Tags, Via: via, From: from}
}

// Root is the actor for anybody who can read the data directory. It may do what an
// owner may.
func Root() Actor { return Actor{User: "root", Role: RoleOwner, Via: ViaCLI} }

// System is the server itself.
func System() Actor { return Actor{User: "server", Via: ViaSystem} }

// nodeActor is the actor for a device or a relay that acts on itself.
func nodeActor(ctx context.Context, id string) Actor {
	from, _ := ctx.Value(fromKey{}).(netip.Addr)
	return Actor{User: id, Via: ViaNode, From: from}
}

// fromKey is the address that a request of the node API came from, in its context.
type fromKey struct{}

// covers reports whether an actor's tags include something that carries tags.
func (a Actor) covers(tags []string) bool {
	return len(a.Tags) == 0 || slices.ContainsFunc(tags, func(t string) bool { return slices.Contains(a.Tags, t) })
}

// includes reports whether an actor has everything that a role, narrowed to tags, has.
func (a Actor) includes(role Role, tags []string) bool {
	for _, o := range Operations {
		if o.may[role] > o.may[a.Role] {
			return false
		}
	}
	return len(a.Tags) == 0 || len(tags) > 0 && a.holds(tags)
}

// holds reports whether an actor may give all of tags to something: who is narrowed to
// some tags gives no others, by which more could be reached.
func (a Actor) holds(tags []string) bool {
	return len(a.Tags) == 0 || !slices.ContainsFunc(tags, func(t string) bool { return !slices.Contains(a.Tags, t) })
}
