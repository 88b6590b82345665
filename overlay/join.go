package overlay

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"runtime"
	"strings"
	"time"

	"weft/overlay/api"
	"weft/overlay/api/client"
	"weft/overlay/cert"
	"weft/overlay/internal/follow"
	"weft/overlay/internal/network"
	"weft/overlay/internal/pause"
	"weft/overlay/internal/state"
	"weft/overlay/link"
	"weft/overlay/status"
)

// join gets a certificate for a token, and brings the node up.
func (n *Node) join(ctx context.Context, token string) error {
	tok, err := cert.ParseToken(token)
	if err != nil {
		return &status.Error{Kind: status.KindUsage, Message: err.Error()}
	}
	c, err := n.newcomer(tok)
	if err != nil {
		return err
	}
	defer c.close()
	res, err := c.server.Join(ctx, c.req)
	if err != nil {
		return joinError(err, tok)
	}
	n.clock.Contact(res.Config.ServerTime)
	return n.adopt(c.id, res)
}

// newcomer is a device that is about to join.
type newcomer struct {
	id     *network.Identity
	req    api.JoinRequest
	server *client.Client // shows the key of id to the server
	dialer *link.Dialer   // of server
}

func (c *newcomer) close() {
	c.dialer.Drop()
	c.server.CloseIdleConnections()
}

// newcomer prepares a join, with the identity on disk if it belongs to the network of tok,
// else with a new one. The identity key is on disk before the server is asked, so that a
// join whose answer was lost is repeated as the same device and does not make a second one.
// The connection to the server is made meanwhile.
func (n *Node) newcomer(tok cert.Token) (*newcomer, error) {
	defer n.keeper.Pause()()
	dir := n.stateDir()
	if dir == nil {
		return nil, errors.New("overlay: the node is not started")
	}
	id, fresh, err := n.identityFor(tok)
	if err != nil {
		return nil, err
	}
	csr, err := cert.NewCSR(id.Key)
	if err != nil {
		return nil, fmt.Errorf("join: %w", err)
	}
	roots, err := cert.NewServerRoots([]cert.Pin{tok.Server}, nil)
	if err != nil {
		return nil, fmt.Errorf("join: %w", err)
	}
	shown, err := cert.SelfSigned(id.Key)
	if err != nil {
		return nil, fmt.Errorf("join: %w", err)
	}
	hostname := n.cfg.Hostname
	if hostname == "" {
		hostname, _ = os.Hostname()
	}
	dialer := n.server.dialerTo(tok.URLs, roots, shown)
	dialer.DialAhead()
	c := &newcomer{id: id, server: client.New(dialer.Transport(), n.times.server), dialer: dialer}
	c.req = api.JoinRequest{
		Protocol: api.Protocol, Secret: tok.Secret, CSR: csr, Hostname: hostname,
		OS: runtime.GOOS + "/" + runtime.GOARCH, Software: n.cfg.Version,
	}
	if fresh {
		if err := dir.SaveIdentity(id); err != nil {
			c.close()
			return nil, err
		}
		n.held.SetIdentity(id)
	}
	return c, nil
}

// identityFor returns the identity to join with, and whether it is a new one, which is not
// on disk.
func (n *Node) identityFor(tok cert.Token) (id *network.Identity, fresh bool, err error) {
	old, joins := n.held.Identity(), tok.Network.NetworkID()
	if old != nil && old.Network != joins && old.Joined() {
		return nil, false, &status.Error{Kind: status.KindUsage,
			Message: "this device belongs to another network", Hint: "run: weft logout, or use another --state directory and --socket for a second network"}
	} else if old != nil && old.Network == joins {
		id := *old
		id.URLs, id.ServerPins = network.MergeURLs(tok.URLs, old.URLs), []cert.Pin{tok.Server}
		return &id, false, nil
	}
	id, err = network.NewIdentity(joins, tok.Server, tok.URLs)
	return id, true, err
}

// adopt makes the server's answer this node's identity, and brings the node up. It saves
// the identity first. The link to the relay is made meanwhile, but nothing is said over it
// before the node has joined.
func (n *Node) adopt(id *network.Identity, res *api.JoinResponse) error {
	joined := *id
	joined.Certificate = res.Certificate
	joined.NetworkCAs = res.Config.NetworkCAs
	joined.ServerTime = res.Config.ServerTime
	joined.URLs = network.MergeURLs(id.GoodURLs(res.Config.ServerURLs), id.URLs)
	snap, err := network.New(&joined, &res.Config, res.CRL)
	if err != nil {
		return fmt.Errorf("join: the server's answer is not usable: %w", err)
	}
	if !id.Key.PublicKey.Equal(snap.Self.Leaf.PublicKey) {
		return errors.New("join: the server certified another key than this device's")
	}
	n.turn.Lock()
	defer n.turn.Unlock()
	dialer := n.server.dialer()
	if n.active.Load() == nil { // else it is connected, and another link would replace that one
		dialer.Take(n.server.homeAhead(&joined, snap))
	}
	err = n.becomeMember(&joined, snap, res)
	if err == nil {
		err = n.runInTurn(dialer, res.Directory)
	}
	if err != nil {
		dialer.Drop()
	}
	return err
}

// becomeMember saves the identity and the configuration, and makes the node a member of the
// network.
func (n *Node) becomeMember(joined *network.Identity, snap *network.Network, res *api.JoinResponse) error {
	defer n.keeper.Pause()()
	n.mu.Lock()
	closed := n.closed
	n.mu.Unlock()
	if closed {
		return errors.New("overlay: the node is closed")
	}
	// The identity comes last: whoever has it has a configuration that fits it.
	if err := n.state.SaveJSON(state.Content{File: state.ConfigFile, JSON: &res.Config}, state.Content{File: state.IdentityFile, JSON: joined}); err != nil {
		return err
	}
	n.held.Join(joined, snap)
	n.keeper.Mark(state.CRLFile)
	n.log.Info(fmt.Sprintf("joined as %s, %s", snap.Self.FQDN, snap.Self.IPv4))
	return nil
}

// startJoining joins at Start. A refusal is final; an unreachable server is tried again
// in the background, because a device may boot before its network.
func (n *Node) startJoining(ctx context.Context, token string) error {
	err := n.Up(ctx, token)
	if err == nil || follow.RefusedForGood(err) || status.KindOf(err) == status.KindUsage {
		return err
	}
	var local *status.Error
	if errors.As(err, &local) && local.Kind != status.KindUnavailable {
		return err
	}
	n.log.Warn("join: will try again", "err", err)
	n.health.Set(status.CodeJoinWaiting, fmt.Sprintf("joining: %v; trying again by itself", err))
	n.bg.Go(func() {
		for wait := time.Second; ; wait = min(2*wait, time.Minute) {
			if !pause.Sleep(n.bgCtx, pause.Jitter(wait)) {
				return
			}
			if n.held.Identity().Joined() { // weft up has joined meanwhile
				break
			}
			err := n.Up(n.bgCtx, token)
			if err == nil {
				break
			}
			n.health.Set(status.CodeJoinWaiting, fmt.Sprintf("joining: %v", err))
			if follow.RefusedForGood(err) {
				n.log.Error("join: refused", "err", err)
				return
			}
		}
		n.health.Clear(status.CodeJoinWaiting)
	})
	return nil
}

// joinError turns an error of a join into one for the user who pasted the token.
func joinError(err error, tok cert.Token) error {
	var refused *api.Error
	switch {
	case errors.As(err, &refused):
		e := &status.Error{Kind: status.KindFailed, Message: "join: " + refused.Message, Hint: refused.Hint}
		if e.Hint == "" {
			switch refused.Code {
			case api.CodeTokenUnknown, api.CodeTokenExpired, api.CodeTokenUsed, api.CodeTokenRevoked:
				e.Hint = "make a new token in the console, or with `weft-server keys create`"
			}
		}
		return wrapRefusal(e, refused)
	case errors.Is(err, cert.ErrUntrusted):
		return wrapRefusal(&status.Error{Kind: status.KindDenied,
			Message: fmt.Sprintf("join: the server at %s is not the one that made this token: %v", tok.URLs[0], err),
			Hint:    "nothing was sent to it; ask the owner for a new token"}, err)
	default:
		return &status.Error{Kind: status.KindUnavailable,
			Message: fmt.Sprintf("join: cannot reach the server at %s: %s", tok.URLs[0], strings.TrimPrefix(err.Error(), "dial "+tok.URLs[0]+": ")),
			Hint:    "check the address, and that TCP to it is allowed from here"}
	}
}

// refusal is an error for the user that also wraps its cause.
type refusal struct {
	shown *status.Error
	cause error
}

func (r *refusal) Error() string   { return r.shown.Error() }
func (r *refusal) Unwrap() []error { return []error{r.shown, r.cause} }

func wrapRefusal(e *status.Error, cause error) error { return &refusal{e, cause} }

var _ http.RoundTripper = (*link.Dialer)(nil).Transport()
