package webapi

import (
	"context"
	"net/http"

	"weft/coord/ops"
)

// RelayList are all relays, the server's own first.
type RelayList struct {
	Relays []ops.RelayInfo `json:"relays"`
}

// NewLink asks for a sign-in link.
type NewLink struct {
	User string `json:"user,omitempty" doc:"name of who signs in with it; the network's owner if not given"`
}

// Link is a sign-in link for the console that works once.
type Link struct {
	URL string `json:"url"`
}

// Snapshot is a copy of the database in the data directory. Whoever asked for it
// removes it.
type Snapshot struct {
	Path string `json:"path"`
}

func (a *api) network() {
	s := a.ops
	add(a, operation{"GET", "/relays", "listRelays", "List the relays, the server's own first", "relay.read", 0},
		func(_ context.Context, who ops.Actor, _ *struct{}) (RelayList, error) {
			list, err := s.RelayList(who)
			return RelayList{list}, err
		})
	add(a, operation{"DELETE", "/relays/{id}", "deleteRelay", "Remove a relay; devices move to another one", "relay.remove", 0},
		func(ctx context.Context, who ops.Actor, in *Word) (ops.RelayInfo, error) {
			r, err := ops.Do(ctx, s, who, ops.RemoveRelay{Name: in.ID})
			if err != nil {
				return ops.RelayInfo{}, err
			}
			return s.ViewRelay(r), nil
		})
	add(a, operation{"GET", "/network/revocations", "getRevocations", "Say how full the revocation list is", "network.show", 0},
		func(_ context.Context, who ops.Actor, _ *struct{}) (ops.Revocations, error) {
			return s.ShowRevocations(who)
		})
	addSent(a, operation{"POST", "/login-links", "createLoginLink", "Make a sign-in link for the console that works once", "user.link", http.StatusCreated},
		func(ctx context.Context, who ops.Actor, _ *Sent, body NewLink) (Link, error) {
			path, err := ops.Do(ctx, s, who, ops.CreateLink{User: body.User})
			if err != nil {
				return Link{}, err
			}
			return Link{s.LinkURL(path)}, nil
		})
	add(a, operation{"POST", "/snapshots", "createSnapshot", "Write a consistent copy of the database into the data directory, for who has that directory", "network.backup", http.StatusCreated},
		func(ctx context.Context, who ops.Actor, _ *struct{}) (Snapshot, error) {
			path, err := s.Snapshot(ctx, who)
			return Snapshot{path}, err
		})
}
