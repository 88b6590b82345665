package webapi

import (
	"context"
	"net/http"

	"weft/coord/ops"
)

// RelayList is one page of the relays, the server's own first.
type RelayList struct {
	Relays []ops.RelayInfo `json:"relays"`
	Next   string          `json:"next"` // cursor of the next page, "" at the end
}

// NewLink asks for a sign-in link.
type NewLink struct {
	User string `json:"user,omitempty" doc:"name of the user who signs in with it; the network's owner if not given"`
}

// Link is a sign-in link for the console that works once.
type Link struct {
	URL string `json:"url"`
}

// Made names the link in the answer to a repeated request, as the link itself is not saved.
func (Link) Made() string { return "a sign-in link" }

// Snapshot is a copy of the database in the data directory. The client removes it.
type Snapshot struct {
	Path string `json:"path"`
}

func (a *api) network() {
	s := a.ops
	addAsked(a, operation{"GET", "/relays", "listRelays", "List the relays, the server's own first", "relay.read", 0}, "cursor limit",
		func(_ context.Context, who ops.Actor, in *Asked) (RelayList, error) {
			relays, err := s.RelayList(who)
			if err != nil {
				return RelayList{}, err
			}
			list := RelayList{}
			list.Relays, list.Next, err = page(relays, in, oldestFirst, func(r ops.RelayInfo) (int64, string) {
				if r.Builtin {
					return 0, ""
				}
				return r.Joined.Unix(), r.ID
			})
			return list, err
		})
	add(a, operation{"DELETE", "/relays/{id}", "deleteRelay", "Remove a relay; devices move to another one", "relay.remove", 0},
		func(ctx context.Context, who ops.Actor, in *Word) (ops.RelayInfo, error) {
			return do(ctx, a, who, ops.RemoveRelay{Name: in.ID}, s.ViewRelay)
		})
	add(a, operation{"GET", "/network/revocations", "getRevocations", "Say how full the revocation list is", "network.show", 0},
		func(_ context.Context, who ops.Actor, _ *struct{}) (ops.Revocations, error) {
			return s.ShowRevocations(who)
		})
	add(a, operation{"GET", "/network/fips", "getFIPS", "Say whether the server is in FIPS 140-3 mode", "network.show", 0},
		func(ctx context.Context, who ops.Actor, _ *struct{}) (ops.FIPS, error) {
			return s.ShowFIPS(ctx, who)
		})
	addSent(a, operation{"POST", "/login-links", "createLoginLink", "Create a sign-in link for the console that works once", "user.link", http.StatusCreated},
		func(ctx context.Context, who ops.Actor, _ *Sent, body NewLink) (Link, error) {
			return do(ctx, a, who, ops.CreateLink{User: body.User}, func(path string) Link { return Link{s.LinkURL(path)} })
		})
	add(a, operation{"POST", "/snapshots", "createSnapshot", "Write a consistent copy of the database into the data directory, for clients that can read that directory", "network.backup", http.StatusCreated},
		func(ctx context.Context, who ops.Actor, _ *struct{}) (Snapshot, error) {
			path, err := s.Snapshot(ctx, who)
			return Snapshot{path}, err
		})
}
