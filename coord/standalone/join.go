package standalone

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"weft/coord/ca"
	"weft/overlay/api"
	"weft/overlay/cert"
)

// ErrNotJoined means that the relay has not joined a network and was started without a token.
var ErrNotJoined = errors.New("this relay has not joined a server yet; make a token with `weft-server keys create --relay` on the server and start with --token TOKEN")

// identityFor returns the identity with which the relay starts: id, the one on disk, with the
// addresses of the server brought up to date, or a new one for the token if id is nil. A relay
// that has joined takes only the server's addresses from a token.
func (r *Relay) identityFor(id *identity) (*identity, error) {
	var first []string
	if r.o.Server != "" {
		if err := cert.CheckURL(r.o.Server); err != nil {
			return nil, fmt.Errorf("--server: %w", err)
		}
		first = []string{r.o.Server}
	}
	if r.o.Token == "" {
		if !id.joined() {
			return nil, ErrNotJoined
		}
		next := *id
		next.URLs = merge(first, id.URLs)
		return &next, nil
	}
	tok, err := cert.ParseToken(r.o.Token)
	if err != nil {
		return nil, err
	}
	if id != nil && id.Network != tok.Network.NetworkID() {
		return nil, fmt.Errorf("the relay in %s belongs to another network than the token; choose another data directory with --data DIR", r.o.Data)
	}
	urls := merge(first, tok.URLs)
	if id == nil {
		if id, err = newIdentity(tok, urls); err != nil {
			return nil, err
		}
		// Save the key before asking the server. If the answer to the join is lost, the relay
		// repeats the join with the same key, and the server does not count a second relay.
		return id, id.save(r.o.Data)
	}
	next := *id
	next.URLs = merge(urls, id.URLs)
	if !id.joined() {
		next.ServerPins = []cert.Pin{tok.Server}
	}
	return &next, next.complete()
}

// join exchanges the token for a certificate. It tries again until the server answers or ctx
// ends.
func (r *Relay) join(ctx context.Context) error {
	id := r.id.Load()
	tok, err := cert.ParseToken(r.o.Token)
	if err != nil {
		return err
	}
	csr, err := cert.NewCSR(id.key)
	if err != nil {
		return err
	}
	name := r.o.Name
	if name == "" {
		name, _ = os.Hostname()
	}
	req := api.RelayJoinRequest{Protocol: api.Protocol, Secret: tok.Secret, CSR: csr, Name: name, URLs: r.o.URLs, STUN: r.stun, Software: r.o.Software}
	for wait := time.Second; ; wait = min(2*wait, 30*time.Second) {
		res, err := r.client.JoinRelay(ctx, req)
		if err == nil {
			return r.adopt(res)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if refused(err) {
			return joinError(err, id)
		}
		r.log.Warn("join: the server does not answer; retrying", "servers", id.URLs, "err", err)
		if !sleep(ctx, wait) {
			return ctx.Err()
		}
	}
}

func (r *Relay) adopt(res *api.RelayJoinResponse) error {
	id, err := r.id.Load().trusting(res.Trust, res.Certificate, r.clock.Now())
	if err != nil {
		return fmt.Errorf("join: %w", err)
	}
	id.Name = res.Name
	crl, err := id.roots.VerifyCRL(res.CRL)
	if err != nil {
		return fmt.Errorf("join: the server's revocation list: %w", err)
	}
	if err := ca.WriteFile(filepath.Join(r.o.Data, crlFile), crl.Raw); err != nil {
		return err
	}
	if err := id.save(r.o.Data); err != nil {
		return err
	}
	r.crl.Store(crl)
	r.id.Store(id)
	r.log.Info("joined", "network", id.Network, "name", id.Name)
	return nil
}

// refused reports whether the server refused a request for good, so that repeating it is
// useless.
func refused(err error) bool {
	var e *api.Error
	if errors.As(err, &e) {
		return e.Status >= 400 && e.Status < 500 && e.Status != http.StatusTooManyRequests && e.Status != http.StatusRequestTimeout
	}
	return errors.Is(err, cert.ErrUntrusted)
}

func joinError(err error, id *identity) error {
	if errors.Is(err, cert.ErrUntrusted) {
		return fmt.Errorf("join: the server at %s is not the one that made this token; nothing was sent to it, ask its owner for a new token: %w", id.URLs[0], err)
	}
	return fmt.Errorf("join: %w", err)
}

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
