package ops

import (
	"context"
	"net/netip"
	"slices"

	"weft/coord/store"
)

// Role is what a person, or a service, may do in a network.
type Role string

// The roles, from the one that may do everything to the one that has only what is
// its own.
const (
	RoleOwner    Role = "owner"
	RoleAdmin    Role = "admin"    // everything but what makes users owners
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

// Actor is who asks for an operation. The zero value may do nothing. Role and Tags of
// one with a UserID are what its user had when the request came: a command takes them
// anew from the user's row, inside its transaction, and so ends what was taken away.
type Actor struct {
	UserID string // "" for none
	User   string // its name, or that of the device
	Token  string // id of the token that it came with, "" for none
	Role   Role
	// Tags, if there are any, narrow the role to devices and keys that carry one of
	// them.
	Tags []string
	Via  Via
	// From is the address that the request came from; invalid on this machine.
	From netip.Addr
}

// actorOf is a user that came in by some way.
func actorOf(u store.User, via Via, from netip.Addr) Actor {
	return Actor{UserID: u.ID, User: u.Name, Role: Role(u.Role), Tags: u.Tags, Via: via, From: from}
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
