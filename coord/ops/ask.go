package ops

import (
	"context"
	"errors"
	"net/http"
	"net/netip"

	"weft/coord/store"
	"weft/overlay/api"
	"weft/overlay/cert"
)

// Pins identify this network to a device that has no token.
func (s *Service) Pins() api.Pins {
	return api.Pins{
		Server: cert.PinOf(s.auth.Server.Cert).String(), Network: cert.PinOf(s.auth.Network.Cert).String(),
		URLs: append([]string{}, s.index.info().URLs...),
	}
}

// handleAsk records the request of a device that asks to join, and answers with its code. A
// device that has joined already gets its certificate again, as with a repeated join.
func (s *Service) handleAsk(ctx context.Context, c *caller, r *http.Request) (any, error) {
	var req api.Ask
	if err := readRequest(r, &req); err != nil {
		return nil, err
	}
	if err := checkProtocol(theDevice, req.Protocol); err != nil {
		return nil, err
	}
	if !req.SignIn {
		if res, err := s.letIn(ctx, c); res != nil || err != nil {
			return res, err
		}
	} else if res, err := s.signedIn(ctx, c); res != nil || err != nil {
		return res, err
	}
	from, _ := ctx.Value(fromKey{}).(netip.Addr)
	now := s.now()
	// Refuse malformed requests before checking a signature, which costs more.
	if _, ok := s.requests.asking.Take(SourceOf(from).String(), askLimit, now); !ok {
		return nil, fail(http.StatusTooManyRequests, api.CodeTooMany, "too many devices ask to join from this address", "wait a minute")
	}
	if err := checkKey(c, req.CSR); err != nil {
		return nil, err
	}
	code := s.requests.add(ask{
		newcomer: newcomer{caller: *c, hostname: printable(req.Hostname, 255), os: printable(req.OS, 64), software: printable(req.Software, 64)},
		from:     from,
		signIn:   req.SignIn,
	}, now)
	if code == "" {
		return nil, fail(http.StatusTooManyRequests, api.CodeTooMany, "too many devices wait for approval", "try again in ten minutes, or join with a token: weft up TOKEN")
	}
	s.refusals.add(now, Actor{Via: ViaNode, From: from}, opRequestAsk, target{}, "")
	res := s.asked(api.AskWaiting)
	res.Code, res.Expires = code, now.Add(api.AskLife)
	return res, nil
}

// handlePollAsk tells a waiting device what was decided.
func (s *Service) handlePollAsk(ctx context.Context, c *caller, r *http.Request) (any, error) {
	var req api.Poll
	if err := readRequest(r, &req); err != nil {
		return nil, err
	}
	a := s.requests.of(c.id, s.now())
	if !req.SignIn || a.signIn && a.state == api.AskApproved {
		if res, err := s.letIn(ctx, c); res != nil || err != nil {
			return res, err
		}
	}
	if a.signIn != req.SignIn {
		return s.asked(api.AskUnknown), nil
	}
	switch a.state {
	case api.AskWaiting, api.AskDenied:
		res := s.asked(a.state)
		res.Expires = a.expires()
		return res, nil
	case api.AskApproved: // the index will follow in a moment
		res := s.asked(api.AskWaiting)
		res.Expires = a.expires()
		return res, nil
	}
	return s.asked(api.AskUnknown), nil
}

// handleEndAsk deletes the request of a device that no longer waits.
func (s *Service) handleEndAsk(_ context.Context, c *caller, _ *http.Request) (any, error) {
	s.requests.end(c.id)
	return statusOnly(http.StatusNoContent), nil
}

func (s *Service) asked(state string) *api.Asked {
	p := s.Pins()
	return &api.Asked{State: state, Server: p.Server, Network: p.Network}
}

// signedIn returns the answer to a device that asks to be signed in again although that is not
// due yet, or nil if it is.
func (s *Service) signedIn(ctx context.Context, c *caller) (any, error) {
	node, err := s.nodeOf(ctx, c)
	if err != nil {
		return nil, gone(err)
	}
	set := *s.signIn.Load()
	switch _, remind, ok := signInDue(set, node); {
	case set.DeviceDays > 0 && len(node.Tags) > 0:
		return nil, fail(http.StatusConflict, api.CodeConflict, "this device carries tags, and does not have to be signed in again", "")
	case !ok, !node.Overdue && s.now().Before(remind):
		return s.letIn(ctx, c)
	}
	return nil, nil
}

// nodeOf returns the row of the calling device, ErrNotFound if it has none.
func (s *Service) nodeOf(ctx context.Context, c *caller) (node store.Node, err error) {
	if _, known := s.index.has(c.id); !known {
		return node, store.ErrNotFound
	}
	err = s.store.Read(ctx, func(r *store.Reader) (err error) { node, err = r.Node(s.network, c.id); return err })
	return node, err
}

// letIn returns the answer to a device that was approved, or nil for any other.
func (s *Service) letIn(ctx context.Context, c *caller) (any, error) {
	node, err := s.nodeOf(ctx, c)
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	res := s.asked(api.AskApproved)
	res.Join, err = s.joined(ctx, node)
	if err != nil {
		return nil, err
	}
	return res, nil
}
