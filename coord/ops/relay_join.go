package ops

import (
	"context"
	"crypto/ecdsa"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"
	"time"

	"weft/coord/store"
	"weft/overlay/api"
	"weft/overlay/cert"
)

// handleRelayJoin makes a relay, in the transaction that consumes its token.
func (s *Service) handleRelayJoin(ctx context.Context, c *caller, r *http.Request) (any, error) {
	var req api.RelayJoinRequest
	if err := readRequest(r, &req); err != nil {
		return nil, err
	}
	if err := checkProtocol(theRelay, req.Protocol); err != nil {
		return nil, err
	}
	if err := checkRelayAddrs(req.URLs, req.STUN); err != nil {
		return nil, err
	}
	if len(req.Secret) < 16 || len(req.Secret) > 64 {
		return nil, tokenUnknown()
	}
	hash := sha256.Sum256(req.Secret)
	// Refuse useless requests before they cost a write or a signature check.
	if err := s.store.Read(ctx, func(rd *store.Reader) error { _, err := s.checkRelayToken(rd, c, hash); return err }); err != nil {
		return nil, err
	}
	if err := checkKey(c, req.CSR); err != nil {
		return nil, err
	}
	rl, err := Do(ctx, s, nodeActor(ctx, cert.RelayID(c.spki)), joinRelay{c, &req, hash})
	if err != nil {
		return nil, err
	}
	der, err := s.certifyRelay(c.key)
	if err != nil {
		return nil, err
	}
	return &api.RelayJoinResponse{Name: rl.Name, Certificate: der, Trust: s.relayTrust(), CRL: s.CRL()}, nil
}

// checkRelayToken returns nil if the token may make a relay for the caller. If the caller has
// joined with this token before, it returns that relay.
func (s *Service) checkRelayToken(r *store.Reader, c *caller, hash [32]byte) (store.Relay, error) {
	key, err := r.KeyBySecret(s.network, hash)
	if errors.Is(err, store.ErrNotFound) {
		return store.Relay{}, tokenUnknown()
	}
	if err != nil {
		return store.Relay{}, err
	}
	if !key.Relay {
		return store.Relay{}, fail(http.StatusBadRequest, api.CodeTokenKind, "this token is for a device, not for a relay",
			"make a token for a relay with `weft-server keys create --relay`; a device joins with `weft up TOKEN`")
	}
	relays, err := r.Relays(s.network)
	if err != nil {
		return store.Relay{}, err
	}
	if i := slices.IndexFunc(relays, func(rl store.Relay) bool { return rl.ID == cert.RelayID(c.spki) }); i >= 0 {
		if relays[i].KeyID == key.ID {
			return relays[i], nil
		}
		return store.Relay{}, fail(http.StatusConflict, api.CodeConflict, "this relay has joined already, as "+relays[i].Name, "start it without --token")
	}
	if len(relays) >= maxRelays {
		return store.Relay{}, fail(http.StatusConflict, api.CodeFull, fmt.Sprintf("this network has %d relays, and no more can join", len(relays)), "remove one with `weft-server relays remove NAME`")
	}
	return store.Relay{}, s.usable(key)
}

// joinRelay makes a relay, or returns the one that the caller has made with this token before.
type joinRelay struct {
	c    *caller
	req  *api.RelayJoinRequest
	hash [32]byte
}

func (joinRelay) operation() *Operation { return opRelayJoin }

func (j joinRelay) run(tx *Tx) (store.Relay, error) {
	s := tx.s
	if err := tx.may(target{}); err != nil {
		return store.Relay{}, err
	}
	// Check again: the token may have been used while this write waited for its turn.
	rl, err := s.checkRelayToken(&tx.Reader, j.c, j.hash)
	if err != nil || rl.ID != "" {
		return rl, err
	}
	key, err := tx.KeyBySecret(s.network, j.hash)
	if err != nil {
		return rl, err
	}
	if _, err := tx.UseKey(s.network, key.ID, tx.now); err != nil {
		return rl, err
	}
	relays, err := tx.Relays(s.network)
	if err != nil {
		return rl, err
	}
	rl = store.Relay{
		ID: cert.RelayID(j.c.spki), Name: relayNameFor(j.req.Name, relays), URLs: j.req.URLs, STUN: j.req.STUN,
		KeyID: key.ID, Software: printable(j.req.Software, 64), Created: tx.now.UTC().Truncate(time.Second),
	}
	if err := tx.InsertRelay(s.network, rl); err != nil {
		return rl, err
	}
	tx.did(relayTarget(rl), nil, rl)
	return rl, tx.relaysChanged()
}

func relayTarget(r store.Relay) target { return target{kind: "relay", id: r.ID, name: r.Name} }

// relayNameFor returns a name that no other relay has.
func relayNameFor(asked string, relays []store.Relay) string {
	base := CleanName(asked)
	for i := 1; ; i++ {
		name := base
		if i > 1 {
			name = base + "-" + strconv.Itoa(i)
		}
		if name != relayName && !slices.ContainsFunc(relays, func(r store.Relay) bool { return r.Name == name }) {
			return name
		}
	}
}

// relaysChanged raises the config version of all nodes, because their configs list the relays.
func (tx *Tx) relaysChanged() error {
	n, err := tx.BumpConfig(tx.s.network)
	if err != nil {
		return err
	}
	tx.changed(n, store.RelaysChanged, "")
	return nil
}

// checkRelayAddrs checks the addresses of a relay, which go into the configs of all nodes.
func checkRelayAddrs(urls, stun []string) error {
	bad := func(format string, args ...any) error {
		return fail(http.StatusBadRequest, api.CodeBadRequest, fmt.Sprintf(format, args...), "start the relay with --url https://HOST:PORT")
	}
	if len(urls) == 0 || len(urls) > 8 || len(stun) > 8 {
		return bad("the relay has %d URLs and %d STUN addresses: want 1 to 8 URLs, and at most 8 STUN addresses", len(urls), len(stun))
	}
	for _, u := range urls {
		if err := cert.CheckURL(u); err != nil {
			return bad("%v", err)
		}
	}
	for _, a := range stun {
		host, port, err := net.SplitHostPort(a)
		n, perr := strconv.ParseUint(port, 10, 16)
		if err != nil || perr != nil || n == 0 || host == "" || len(host) > 253 || printable(host, 253) != host {
			return bad("STUN address %q: want HOST:PORT", printable(a, 100))
		}
	}
	return nil
}

// handleRelayRenew issues a new certificate for a relay's key.
func (s *Service) handleRelayRenew(_ context.Context, c *caller, r *http.Request) (any, error) {
	var req api.RelayRenewRequest
	if err := readRequest(r, &req); err != nil {
		return nil, err
	}
	if err := checkProtocol(theRelay, req.Protocol); err != nil {
		return nil, err
	}
	if err := checkKey(c, req.CSR); err != nil {
		return nil, err
	}
	der, err := s.certifyRelay(c.key)
	if err != nil {
		return nil, err
	}
	return &api.RelayRenewResponse{Certificate: der, Trust: s.relayTrust()}, nil
}

func (s *Service) certifyRelay(key *ecdsa.PublicKey) ([]byte, error) {
	return s.auth.Server.SignServer(key, cert.RoleRelay, s.now().Add(-clockSlack), relayLife+clockSlack)
}

func (s *Service) relayTrust() api.RelayTrust {
	return api.RelayTrust{Network: s.network.String(), ServerURLs: s.index.info().URLs, ServerCAs: s.auth.ServerCAs(), NetworkCAs: s.auth.NetworkCAs()}
}
