package overlay

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"time"

	"weft/overlay/api"
	"weft/overlay/cert"
	"weft/overlay/internal/lookup"
	"weft/overlay/internal/network"
	"weft/overlay/status"
)

// signIn is Up for a device that has joined. If it has to be signed in again soon, or is
// overdue, shown is called with the code that the person approves whose device it is; it
// returns when that is decided. The device keeps its key, name, address and certificate.
func (n *Node) signIn(ctx context.Context, shown func(status.Asked)) error {
	if err := n.Up(ctx, ""); err != nil {
		return err
	}
	id := n.held.Identity()
	s, ok := n.held.Get()
	if !ok {
		return lookup.ErrNotJoined
	}
	if due := signInStatus(s.Config.SignIn, n.clock.Now()); due == nil || !due.Soon {
		return nil
	}
	csr, err := cert.NewCSR(id.Key)
	if err != nil {
		return fmt.Errorf("sign in again: %w", err)
	}
	// The server is known by what this device holds, and the device by its certificate.
	res, err := n.askFor(ctx, id.URLs[0], n.client(), nil, api.Ask{
		Protocol: api.Protocol, CSR: csr, Hostname: s.Self.Name, OS: runtime.GOOS + "/" + runtime.GOARCH, Software: n.cfg.Version, SignIn: true,
	}, shown)
	if err != nil {
		return err
	}
	if r := n.active.Load(); r != nil {
		err = r.follower.TakeConfig(&res.Config)
	}
	if err != nil && !errors.Is(err, net.ErrClosed) { // it left the network meanwhile, or was ended
		return fmt.Errorf("sign in again: the server's answer is not usable: %w", err)
	}
	return nil
}

// signInStatus is what the server says of signing in again, now in weft time.
func signInStatus(s *api.SignIn, now time.Time) *status.SignIn {
	if s == nil {
		return nil
	}
	return &status.SignIn{Due: s.Due.UTC(), Soon: s.Overdue || !now.Before(s.Remind), Overdue: s.Overdue}
}

// reaches returns an error that says why this device reaches nothing, if that is because it
// has to be signed in again.
func reaches(s *network.Network) error {
	if s.Config.SignIn == nil || !s.Config.SignIn.Overdue {
		return nil
	}
	return &status.Error{Kind: status.KindDenied, Message: "this device has to be signed in again, and reaches nothing until then", Hint: "run: weft up"}
}
