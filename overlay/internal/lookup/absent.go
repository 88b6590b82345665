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

// seenWait bounds the question "since when is it offline?".
const seenWait = 700 * time.Millisecond

// unknown is the answer when there is no such node, as far as this one may know.
func (r *Resolver) unknown(name string, s *network.Network) error {
	hint := "list them with: weft status"
	if near := hostname.Nearest(name, r.cfg.Directory.ShortNames()); near != "" {
		hint = "did you mean " + near + "? " + hint
	}
	return &status.Error{Kind: status.KindUnknown,
		Message: fmt.Sprintf("no device %q in this network that %s may reach", name, s.Self.Name), Hint: hint}
}

// unavailable is the answer when nobody could be asked.
func unavailable(what string, err error) error {
	return &status.Error{Kind: status.KindUnavailable, Message: fmt.Sprintf("%s: the server does not answer: %v", what, err), Hint: "see: weft status"}
}

// SinceWhen adds to an error that says that a peer is offline when it was last seen,
// which the server knows best. It waits for that at most seenWait. Other errors are
// returned as they are.
func (r *Resolver) SinceWhen(ctx context.Context, k *directory.Known, err error) error {
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
			r.cfg.Directory.SetPresence(directory.Sighting{ID: k.Node.ID, Online: p.Online, LastSeen: seen})
		}
	}
	if seen.IsZero() {
		return err
	}
	with := *e
	with.Message += fmt.Sprintf(" (last seen %s, %s)", seen.UTC().Format(time.RFC3339), age.Ago(r.cfg.Now().Sub(seen)))
	return &with
}
