package ops

import (
	"context"
	"crypto/ecdsa"
	"crypto/sha256"
	"errors"
	"net/http"
	"time"

	"weft/coord/store"
	"weft/dns"
	"weft/overlay/api"
	"weft/overlay/cert"
)

// clockSlack is how long before its issue a certificate is already valid, because clocks
// differ, and because the server's own clock may be set back.
const clockSlack = time.Hour

// handleJoin makes a node. The token is checked and consumed in the write transaction that
// inserts the node's row, so a one-time token makes one node even if several requests use it at
// the same time.
func (s *Service) handleJoin(ctx context.Context, c *caller, r *http.Request) (any, error) {
	var req api.JoinRequest
	if err := readRequest(r, &req); err != nil {
		return nil, err
	}
	node, err := s.join(ctx, c, &req)
	if err != nil {
		return nil, err
	}
	return s.joined(ctx, node)
}

// What is longer is left out of the answer to a join: it should not take long on a slow
// line, and nodes refuse an answer of more than 1 MB.
const (
	joinCRL   = 64 << 10 // bytes
	joinPeers = 64       // in the directory, of about 1 KB each
)

// joined returns the answer to a device that has joined, with what it would ask for next.
// That would be two requests, and each would cost it and this server another handshake:
// the connection of a join shows a certificate that the device has signed itself.
func (s *Service) joined(ctx context.Context, node store.Node) (*api.JoinResponse, error) {
	config, err := s.configOf(node)
	if err != nil {
		return nil, err
	}
	res := &api.JoinResponse{Certificate: node.Certificate, Config: *config}
	if list := s.CRL(); len(list) <= joinCRL {
		res.CRL = list
	}
	if v, ok := s.index.view(node.ID); ok && v.initiates && !v.lookup {
		res.Directory, err = s.directory(ctx, node.ID, v, api.Version{}, joinPeers)
		if err != nil && !errors.Is(err, errLong) {
			return nil, err
		}
	}
	return res, nil
}

func (s *Service) join(ctx context.Context, c *caller, req *api.JoinRequest) (store.Node, error) {
	if err := checkProtocol(theDevice, req.Protocol); err != nil {
		return store.Node{}, err
	}
	if len(req.Secret) < 16 || len(req.Secret) > 64 {
		return store.Node{}, tokenUnknown()
	}
	hash := sha256.Sum256(req.Secret)
	// Refuse useless requests before they cost a write or a signature check.
	var node store.Node
	err := s.store.Read(ctx, func(rd *store.Reader) (err error) { node, err = s.checkToken(rd, c, hash); return err })
	if _, known := s.index.has(c.id); err == nil && node.ID == c.id && known {
		return node, nil // the answer to an earlier join got lost
	}
	// If the row exists but the index does not know it yet, an earlier join has just been
	// committed. The write below is executed after the index has been updated, and returns that
	// node.
	if err == nil && node.ID != c.id {
		err = checkKey(c, req.CSR)
	}
	if err != nil {
		return store.Node{}, err
	}
	return Do(ctx, s, nodeActor(ctx, c.id.String()), join{c, req, hash})
}

// join makes a device: token, name, address, certificate, row.
type join struct {
	c    *caller
	req  *api.JoinRequest
	hash [32]byte
}

func (join) operation() *Operation { return opDeviceJoin }

func (j join) run(tx *Tx) (store.Node, error) {
	s, c, req, hash := tx.s, j.c, j.req, j.hash
	if err := tx.may(target{}); err != nil {
		return store.Node{}, err
	}
	// Check again: the token may have been used while this write waited for its turn.
	node, err := s.checkToken(&tx.Reader, c, hash)
	if err != nil || node.ID == c.id {
		return node, err
	}
	key, err := tx.KeyBySecret(s.network, hash)
	if err != nil {
		return node, err
	}
	now := tx.now
	inHour, err := tx.UseKey(s.network, key.ID, now)
	if err != nil {
		return node, err
	}
	gone, err := s.mayJoin(&tx.Reader, key, inHour, now)
	if err != nil {
		return node, err
	}
	node, err = s.makeNode(tx, newcomer{caller: *c, hostname: req.Hostname, os: req.OS, software: req.Software}, key, gone)
	if err != nil {
		return node, err
	}
	tx.did(deviceTarget(node), nil, node)
	return node, nil
}

// newcomer is a device that has no row yet, with what it claims about itself.
type newcomer struct {
	caller
	hostname, os, software string
}

// makeNode makes the row of a device that joins, with a name, an address and a certificate. key
// decides the owner and the tags. gone is situation.gone.
func (s *Service) makeNode(tx *Tx, c newcomer, key store.Key, gone int) (node store.Node, err error) {
	now := tx.now
	node = store.Node{
		ID: c.id, SPKI: c.spki, UserID: key.UserID, User: key.User, Tags: key.Tags, KeyID: key.ID, Ephemeral: key.Ephemeral,
		Hostname: printable(c.hostname, 255), OS: printable(c.os, 64), Software: printable(c.software, 64), Created: now, SignedIn: now,
	}
	u, err := tx.User(s.network, node.UserID)
	if err != nil {
		return node, err
	}
	node.OfPerson = u.Kind == store.Person
	node.Class = store.Class(node.UserID, store.JoinTags(node.Tags))
	if node.Name, err = s.nameFor(tx, c.id, c.hostname, now); err != nil {
		return node, err
	}
	if node.IPv4, err = tx.AllocIPv4(s.network, s.ipv4, now); err != nil {
		return node, err
	}
	if node.N, err = tx.Bump(s.network); err != nil {
		return node, err
	}
	node.ConfigN = node.N
	life := lifeOf(s.life, situation{ephemeral: node.Ephemeral, joins: true, gone: gone, list: len(s.index.info().CRL)})
	if err := s.sign(tx, &node, c.key, now, life, store.Cause{}); err != nil {
		return node, err
	}
	if err := tx.InsertNode(s.network, node); err != nil {
		return node, err
	}
	if err := tx.nameTags(node.Tags); err != nil {
		return node, err
	}
	tx.changed(node.N, store.DeviceJoined, node.ID.String())
	return node, nil
}

// nameFor returns the name of a device that joins: its old name if it was deleted and comes
// back with the same key, else one made of its hostname.
func (s *Service) nameFor(tx *Tx, id cert.NodeID, hostname string, now time.Time) (string, error) {
	former, err := tx.FormerName(s.network, id, now.Add(-store.FormerKeep))
	if err == nil && !dns.Reserved(former) {
		taken, err := tx.NameTaken(s.network, former)
		if err != nil || !taken {
			return former, err
		}
	} else if err != nil && !isNotFound(err) {
		return "", err
	}
	for base := CleanName(hostname); ; {
		// Treat a reserved name as taken: AllocName appends another number to base.
		if name, err := tx.AllocName(s.network, base); err != nil || !dns.Reserved(name) {
			return name, err
		}
	}
}

// checkToken returns nil if the token may make a node for the caller. If the caller has joined
// with this token before, it returns that node, so that a repeated join gets the same answer.
func (s *Service) checkToken(r *store.Reader, c *caller, hash [32]byte) (store.Node, error) {
	key, err := r.KeyBySecret(s.network, hash)
	if errors.Is(err, store.ErrNotFound) {
		return store.Node{}, tokenUnknown()
	}
	if err != nil {
		return store.Node{}, err
	}
	node, err := r.Node(s.network, c.id)
	switch {
	case err == nil && node.KeyID == key.ID:
		return node, nil
	case err == nil:
		return store.Node{}, fail(http.StatusConflict, api.CodeConflict, "this device has joined already, as "+node.Name,
			"to join anew with another token, run: weft logout")
	case !errors.Is(err, store.ErrNotFound):
		return store.Node{}, err
	}
	if key.Relay {
		return store.Node{}, fail(http.StatusBadRequest, api.CodeTokenKind, "this token is for a relay, not for a device",
			"make a token for a device with `weft-server keys create`; a relay joins with `weft-server relay --data DIR --token TOKEN`")
	}
	return store.Node{}, s.usable(key)
}

// usable returns nil if a key may still be used to join.
func (s *Service) usable(key store.Key) error {
	again := "make a new one in the console, or with `weft-server keys create`"
	if key.Relay {
		again = "make a new one with `weft-server keys create --relay`"
	}
	switch key.State(s.now()) {
	case store.KeyRevoked:
		return fail(http.StatusUnauthorized, api.CodeTokenRevoked, "this token was revoked", again)
	case store.KeySuspended:
		return fail(http.StatusUnauthorized, api.CodeTokenRevoked, "this token cannot be used: its owner, or the person who made it, is suspended", "ask an admin of the network for another token")
	case store.KeyUsed:
		return fail(http.StatusUnauthorized, api.CodeTokenUsed, "this token was used already, by another device", again)
	case store.KeyExpired:
		return fail(http.StatusUnauthorized, api.CodeTokenExpired, "this token expired on "+key.Expires.Format("2006-01-02 15:04 MST"), again)
	}
	return nil
}

func tokenUnknown() *api.Error {
	return fail(http.StatusUnauthorized, api.CodeTokenUnknown, "this server does not know this token", "copy the whole token again, or make a new one with `weft-server keys create`")
}

// checkKey returns an error unless a certificate request is for the key of the connection.
func checkKey(c *caller, csr []byte) error {
	pub, err := cert.CheckCSR(csr)
	if err != nil {
		return fail(http.StatusBadRequest, api.CodeBadRequest, err.Error(), "")
	}
	if !pub.Equal(c.key) {
		return fail(http.StatusUnauthorized, api.CodeUnauthorized, "the certificate request is for another key than the connection's", "")
	}
	return nil
}

// certify issues another certificate for a node, with its current name, tags and owner.
func (s *Service) certify(tx *Tx, node *store.Node, key *ecdsa.PublicKey, now time.Time, cause store.Cause) error {
	held, err := tx.Unexpired(s.network, node.ID, now)
	if err != nil {
		return err
	}
	life := lifeOf(s.life, situation{ephemeral: node.Ephemeral, held: held, list: len(s.index.info().CRL)})
	return s.sign(tx, node, key, now, life, cause)
}

// sign issues a certificate for a node, and records it in the database.
func (s *Service) sign(tx *Tx, node *store.Node, key *ecdsa.PublicKey, now time.Time, life time.Duration, cause store.Cause) error {
	serial := cert.NewSerial()
	node.Expires = now.Add(life)
	der, err := s.auth.Network.SignNode(key, s.attributes(*node), serial, now.Add(-clockSlack), node.Expires)
	if err != nil {
		return err
	}
	node.Certificate = der
	return tx.Issued(s.network, node.ID, serial, node.Expires, cause)
}
