package lookup

import (
	"context"
	"errors"
	"fmt"
	"time"

	"weft/overlay/age"
	"weft/overlay/hostname"
	"weft/overlay/internal/directory"
	"weft/overlay/internal/network"
	"weft/overlay/status"
)

// seenWait bounds the request to the server for since when a peer is offline.
const seenWait = 700 * time.Millisecond

// unknown returns the error for a name without a node, as far as this node may know.
func (r *Resolver) unknown(name string, s *network.Network) error {
	hint := "list them with: weft status"
	if near := hostname.Nearest(name, r.cfg.Directory.ShortNames()); near != "" {
		hint = "did you mean " + near + "? " + hint
	}
	return &status.Error{Kind: status.KindUnknown,
		Message: fmt.Sprintf("no device %q in this network that %s may reach", name, s.Self.Name), Hint: hint}
}

// unavailable returns the error when the server could not be asked.
func unavailable(what string, err error) error {
	return &status.Error{Kind: status.KindUnavailable, Message: fmt.Sprintf("%s: the server does not answer: %v", what, err), Hint: "see: weft status"}
}

// SinceWhen adds to an error that says that a peer is offline when the peer was last
// seen. It asks the server and waits for seenWait at most. Other errors are returned
// unchanged.
func (r *Resolver) SinceWhen(ctx context.Context, k *directory.Entry, err error) error {
	var e *status.Error
	if !errors.As(err, &e) || e.Kind != status.KindUnreachable {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, seenWait)
	defer cancel()
	seen := k.LastSeen
	if p, err := r.cfg.Server().Lookup(ctx, "id", k.Node.ID.String()); err == nil && p.LastSeen != nil {
		seen = *p.LastSeen
		if p.Online || !p.Unknown {
			r.cfg.Directory.SetPresence(directory.Presence{ID: k.Node.ID, Online: p.Online, LastSeen: seen})
		}
	}
	if seen.IsZero() {
		return err
	}
	with := *e
	with.Message += fmt.Sprintf(" (last seen %s, %s)", seen.UTC().Format(time.RFC3339), age.Ago(r.cfg.Now().Sub(seen)))
	return &with
}
