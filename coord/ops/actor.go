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

// The roles. What each may do is in matrix.go.
const (
	RoleOwner    Role = "owner"    // everything
	RoleAdmin    Role = "admin"    // everything but changes to owners and what only owners may do, such as backups
	RoleOperator Role = "operator" // devices and keys of everybody
	RoleAuditor  Role = "auditor"  // reads everything, changes nothing
	RoleMember   Role = "member"   // the member's own devices and keys
)

// Via says how a request for an operation reached the server.
type Via string

// The values of Via.
const (
	ViaConsole Via = "console"
	ViaAPI     Via = "api"
	ViaCLI     Via = "cli"    // by a program that can read the data directory
	ViaNode    Via = "node"   // a device or a relay, about itself
	ViaSystem  Via = "system" // the server itself
)

// Actor is who asks for an operation. The zero value may do nothing. If UserID is set,
// Role and Tags are those that the user had when the request arrived. A command reads
// them again from the user's row inside its transaction, so a right that was taken away
// in between no longer counts.
type Actor struct {
	UserID string // "" for none
	User   string // name of the user, or of the device
	Token  string // id of the API token that the request came with, "" for none
	Role   Role
	// Tags, if any, limit the role to devices and keys that carry one of them.
	Tags []string
	Via  Via
	// From is the address that the request came from; invalid for requests from this
	// machine.
	From netip.Addr
	// SignedIn is when the person in the console last signed in; zero for others.
	SignedIn time.Time
	// Weak says that the actor has not proved as much as the network demands of the role, such
	// as a second factor. Until then only operations that change this are allowed.
	Weak bool
}

// May reports whether an actor may do an operation (its name in Operations) on what belongs
// to the whole network. Pages use it to offer nothing that would be refused.
func (a Actor) May(operation string) bool {
	return operationNamed(operation).authorize(a, target{}) == nil
}

// MaySome reports whether there may be anything, such as the actor's own devices, on which the
// actor may do an operation.
func (a Actor) MaySome(operation string) bool { return operationNamed(operation).asks(a) == nil }

// operationNamed panics if no operation has that name. That would be a bug of a page, and the
// tests draw all pages.
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

// Root is the actor for programs that can read the data directory. It may do what an owner
// may.
func Root() Actor { return Actor{User: "root", Role: RoleOwner, Via: ViaCLI} }

// System is the actor for what the server does by itself.
func System() Actor { return Actor{User: "server", Via: ViaSystem} }

// nodeActor is the actor for a device or a relay that acts on itself.
func nodeActor(ctx context.Context, id string) Actor {
	from, _ := ctx.Value(fromKey{}).(netip.Addr)
	return Actor{User: id, Via: ViaNode, From: from}
}

// fromKey is the context key of the address from which a request to the node API came.
type fromKey struct{}

// covers reports whether an actor's limit by tags, if any, includes a thing with these tags.
func (a Actor) covers(tags []string) bool {
	return len(a.Tags) == 0 || slices.ContainsFunc(tags, func(t string) bool { return slices.Contains(a.Tags, t) })
}

// includes reports whether an actor may do everything that somebody with the role, limited to
// tags, may do.
func (a Actor) includes(role Role, tags []string) bool {
	for _, o := range Operations {
		if o.may[role] > o.may[a.Role] {
			return false
		}
	}
	return len(a.Tags) == 0 || len(tags) > 0 && a.holds(tags)
}

// holds reports whether an actor's limit by tags allows the actor to give a thing all of tags.
// An actor who is limited to some tags may not give others, because the thing could then reach
// more.
func (a Actor) holds(tags []string) bool {
	return len(a.Tags) == 0 || !slices.ContainsFunc(tags, func(t string) bool { return !slices.Contains(a.Tags, t) })
}
