package ops

import (
	"context"
	"net/netip"
	"slices"
)

// Role is what a person, or a service, may do in a network.
type Role string

// The roles, from the one that may do everything to the one that has only what is
// its own.
const (
	RoleOwner    Role = "owner"
	RoleAdmin    Role = "admin"    // everything but what makes people owners
	RoleOperator Role = "operator" // devices and keys of everybody
	RoleAuditor  Role = "auditor"  // reads everything, changes nothing
	RoleMember   Role = "member"   // its own devices and keys
)

// Via is the way an operation came in.
type Via string

// The ways.
const (
	ViaConsole Via = "console"
	ViaAPI     Via = "api"
	ViaCLI     Via = "cli"    // whoever has the data directory
	ViaNode    Via = "node"   // a device, or a relay, for itself
	ViaSystem  Via = "system" // the server by itself
)

// Actor is who asks for an operation. The zero value may do nothing.
type Actor struct {
	UserID string // "" for none
	User   string // its name, or that of the device
	Role   Role
	// Tags, if there are any, narrow the role to devices and keys that carry one of
	// them.
	Tags []string
	Via  Via
	// From is the address that the request came from; invalid on this machine.
	From netip.Addr
}

// Root is whoever has the data directory. It may do what an owner may.
func Root() Actor { return Actor{User: "root", Role: RoleOwner, Via: ViaCLI} }

// System is the server itself.
func System() Actor { return Actor{User: "server", Via: ViaSystem} }

// nodeActor is a device or a relay that asks for itself.
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
