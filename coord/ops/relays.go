package ops

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"

	"weft/coord/store"
	"weft/overlay/api"
	"weft/overlay/cert"
)

// Relays that run alone (package coord/standalone is their half). They join
// with a token like devices, appear in everybody's config, and are told of
// revocations and of the current versions of the nodes connected to them.

const (
	relayLife   = 90 * 24 * time.Hour // of a certificate; the relay renews it at two thirds
	maxRelays   = 64
	relayWait   = 20 * time.Second // how long a sync waits for something new
	relaySilent = time.Minute      // without a sync: who it said was online may not be
	syncNodes   = 1000             // in one answer
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
	// Junk is turned away before it costs a write or a signature check.
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

// checkRelayToken says whether the token may make a relay for this key. The
// relay that it made already is returned.
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
			"make a relay's with `weft-server keys create --relay`; a device joins with `weft up TOKEN`")
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

// joinRelay makes a relay, or returns the one that its token made already.
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
	// The answer may have changed while this write waited for its turn.
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

// relaysChanged makes another config for everybody.
func (tx *Tx) relaysChanged() error {
	n, err := tx.BumpConfig(tx.s.network)
	if err != nil {
		return err
	}
	tx.changed(n, store.RelaysChanged, "")
	return nil
}

// checkRelayAddrs checks what goes into everybody's config.
func checkRelayAddrs(urls, stun []string) error {
	bad := func(format string, args ...any) error {
		return fail(http.StatusBadRequest, api.CodeBadRequest, fmt.Sprintf(format, args...), "start the relay with --url https://HOST:PORT")
	}
	if len(urls) == 0 || len(urls) > 8 || len(stun) > 8 {
		return bad("%d relay addresses and %d of STUN: want 1 to 8, and at most 8", len(urls), len(stun))
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

func (s *Service) certifyRelay(key *ecdsa.PublicKey) ([]byte, error) {
	return s.auth.Server.SignServer(key, cert.RoleRelay, s.now().Add(-clockSlack), relayLife+clockSlack)
}

func (s *Service) relayTrust() api.RelayTrust {
	return api.RelayTrust{Network: s.network.String(), ServerURLs: s.index.info().URLs, ServerCAs: s.auth.ServerCAs(), NetworkCAs: s.auth.NetworkCAs()}
}

// handleRelayRenew signs a relay's key anew.
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

// relaySession is what the server remembers of one relay that runs alone,
// until either starts anew.
type relaySession struct {
	wake chan struct{} // capacity 1: something changed

	mu sync.Mutex
	// mu guards the following.
	instance string // another one each time the server forgets
	run      string // of the relay
	all      bool   // the relay has said who is connected to it, and since then who came and went
	seq      uint64
	heard    time.Time
	members  map[cert.NodeID]struct{}     // who it says is connected
	sent     map[cert.NodeID]api.Versions // what it was told of them
	names    api.Version                  // the same of all names
}

func newRelaySession(now time.Time) *relaySession {
	return &relaySession{
		wake: make(chan struct{}, 1), instance: rand.Text(), heard: now,
		members: map[cert.NodeID]struct{}{}, sent: map[cert.NodeID]api.Versions{},
	}
}

func (rs *relaySession) rouse() {
	select {
	case rs.wake <- struct{}{}:
	default:
	}
}

// relaySessions are those of all relays.
type relaySessions struct {
	done chan struct{} // closed when the server stops: syncs are answered

	mu sync.Mutex
	// mu guards the following.
	closed bool
	byID   map[string]*relaySession
}

func newRelaySessions() *relaySessions {
	return &relaySessions{done: make(chan struct{}), byID: map[string]*relaySession{}}
}

func (rs *relaySessions) of(id string, now time.Time) *relaySession {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	s := rs.byID[id]
	if s == nil {
		s = newRelaySession(now)
		rs.byID[id] = s
	}
	return s
}

func (rs *relaySessions) all() map[string]*relaySession {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	return maps.Clone(rs.byID)
}

// toldAll reports whether a relay has said who is connected to it.
func (rs *relaySessions) toldAll(id string) bool {
	rs.mu.Lock()
	s := rs.byID[id]
	rs.mu.Unlock()
	if s == nil {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.all
}

// end forgets a relay that was removed, and has it hear that it was.
func (rs *relaySessions) end(id string) {
	rs.mu.Lock()
	s := rs.byID[id]
	delete(rs.byID, id)
	rs.mu.Unlock()
	if s != nil {
		s.rouse()
	}
}

func (rs *relaySessions) rouse() {
	for _, s := range rs.all() {
		s.rouse()
	}
}

func (rs *relaySessions) close() {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	if !rs.closed {
		rs.closed = true
		close(rs.done)
	}
}

// handleRelaySync answers what is new for a relay, when there is something.
func (s *Service) handleRelaySync(ctx context.Context, c *caller, r *http.Request) (any, error) {
	var req api.RelaySync
	if err := readRequest(r, &req); err != nil {
		return nil, err
	}
	if err := checkProtocol(theRelay, req.Protocol); err != nil {
		return nil, err
	}
	id := cert.RelayID(c.spki)
	if err := s.noteRelay(ctx, id, &req); err != nil {
		return nil, err
	}
	rs := s.relays.of(id, s.now())
	wait := time.NewTimer(relayWait)
	defer wait.Stop()
	for {
		state, news := s.relayState(rs, &req)
		if news {
			return state, nil
		}
		select {
		case <-rs.wake:
			if _, ok := s.index.relay(id); !ok {
				return nil, noRelayHere()
			}
		case <-wait.C:
			return state, nil
		case <-s.relays.done:
			return state, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// noteRelay stores where a relay is, when that changed.
func (s *Service) noteRelay(ctx context.Context, id string, req *api.RelaySync) error {
	if err := checkRelayAddrs(req.URLs, req.STUN); err != nil {
		return err
	}
	rl, ok := s.index.relay(id)
	if !ok {
		return noRelayHere()
	}
	software := printable(req.Software, 64)
	if slices.Equal(rl.URLs, req.URLs) && slices.Equal(rl.STUN, req.STUN) && rl.Software == software {
		return nil
	}
	next := rl
	next.URLs, next.STUN, next.Software = req.URLs, req.STUN, software
	_, err := Do(ctx, s, nodeActor(ctx, id), updateRelay{rl, next})
	return err
}

// updateRelay stores where a relay is.
type updateRelay struct{ old, next store.Relay }

func (updateRelay) operation() *Operation { return opRelayUpdate }

func (c updateRelay) run(tx *Tx) (none struct{}, err error) {
	if err := tx.may(relayTarget(c.next)); err != nil {
		return none, err
	}
	if err := tx.UpdateRelay(tx.s.network, c.next); err != nil {
		return none, err
	}
	tx.did(relayTarget(c.next), c.old, c.next)
	return none, tx.relaysChanged()
}

// relayState returns what a relay does not know yet, and whether that is
// anything.
func (s *Service) relayState(rs *relaySession, req *api.RelaySync) (*api.RelayState, bool) {
	n := s.index.info()
	rs.mu.Lock()
	defer rs.mu.Unlock()
	rs.heard = s.now()
	st := &api.RelayState{Instance: rs.instance, Seq: rs.seq}
	if req.Instance != rs.instance {
		trust := s.relayTrust()
		st.Trust = &trust
	}
	if req.Instance != rs.instance || req.Ack != rs.seq {
		clear(rs.sent) // the last answer got lost
		rs.names = api.Version{}
	}
	st.WantCRL = req.CRL > n.CRLNumber // restored from a backup, with the first answer of its Instance
	if req.CRL < n.CRLNumber {
		st.CRL = n.CRL
	}
	for id := range rs.members {
		v, ok := s.index.versions(id)
		switch {
		case len(st.Nodes)+len(st.Gone) >= syncNodes:
		case !ok:
			st.Gone = append(st.Gone, id.String())
			delete(rs.members, id)
			delete(rs.sent, id)
		case rs.sent[id] != v:
			st.Nodes = append(st.Nodes, api.RelayNode{ID: id.String(), Versions: v})
			rs.sent[id] = v
		}
	}
	if names := s.index.namesVersion(); names != rs.names && len(rs.members) > 0 {
		st.Names, rs.names = names, names
	}
	news := st.Trust != nil || st.CRL != nil || len(st.Nodes)+len(st.Gone) > 0 || !st.Names.IsZero()
	if news {
		rs.seq++
		st.Seq = rs.seq
	}
	return st, news
}

// handleRelayReport takes who came and went at a relay.
func (s *Service) handleRelayReport(_ context.Context, c *caller, r *http.Request) (any, error) {
	var req api.RelayReport
	if err := readRequest(r, &req); err != nil {
		return nil, err
	}
	if len(req.Events) > api.MaxRelayEvents || len(req.Run) > 64 {
		return nil, fail(http.StatusBadRequest, api.CodeBadRequest, fmt.Sprintf("%d events in one report, at most %d", len(req.Events), api.MaxRelayEvents), "")
	}
	now := s.now().UTC()
	id := cert.RelayID(c.spki)
	rs := s.relays.of(id, now)
	rs.mu.Lock()
	defer rs.mu.Unlock()
	rs.heard = now
	if rs.run != req.Run {
		rs.run = req.Run
		s.loseRelay(id, rs, now)
	}
	res := &api.RelayReported{Instance: rs.instance}
	for _, e := range req.Events {
		node, err := cert.ParseNodeID(e.Node)
		if err != nil {
			return nil, fail(http.StatusBadRequest, api.CodeBadRequest, "a report about something that is no device", "")
		}
		if _, ok := s.index.has(node); !ok {
			res.Unknown = append(res.Unknown, e.Node)
			continue
		}
		if e.At.After(now) || now.Sub(e.At) > time.Hour {
			e.At = now
		}
		addr, _ := netip.ParseAddr(e.Addr) // it is there for people
		s.presenceAt(id, node, e.Conn, e.Online, e.At, addr)
		if e.Online {
			rs.members[node] = struct{}{}
		} else if st, ok := s.presence.Get(node); !ok || !st.Online || st.Relay != id {
			delete(rs.members, node)
			delete(rs.sent, node)
		}
	}
	rs.all = rs.all || req.All == rs.instance
	rs.rouse()
	return res, nil
}

// loseRelay forgets who is connected to a relay. rs.mu is held.
func (s *Service) loseRelay(id string, rs *relaySession, now time.Time) {
	rs.all = false
	clear(rs.members)
	clear(rs.sent)
	for _, node := range s.presence.Lose(id, now) {
		s.notePresence(node)
	}
}

// checkRelays takes those for offline who were at a relay that is not heard of
// any more.
func (s *Service) checkRelays() {
	now := s.now().UTC()
	for id, rs := range s.relays.all() {
		rs.mu.Lock()
		if now.Sub(rs.heard) > relaySilent && len(rs.members) > 0 {
			s.log.Warn("a relay is not heard of any more", "id", id, "since", rs.heard)
			rs.instance = rand.Text()
			s.loseRelay(id, rs, now)
		}
		rs.mu.Unlock()
	}
}

// Relays lists the relays that run alone.
func (s *Service) Relays() []store.Relay { return s.index.allRelays() }

// RelayHeard returns when a relay was last heard of since this start.
func (s *Service) RelayHeard(id string) (time.Time, bool) {
	rs := s.relays.all()[id]
	if rs == nil {
		return time.Time{}, false
	}
	rs.mu.Lock()
	defer rs.mu.Unlock()
	return rs.heard, s.now().Sub(rs.heard) < relaySilent
}

// RemoveRelay takes a relay, by name or id, out of everybody's config. What it asks
// from then on is refused.
type RemoveRelay struct{ Name string }

func (RemoveRelay) operation() *Operation { return opRelayRemove }

func (c RemoveRelay) run(tx *Tx) (store.Relay, error) {
	if err := tx.may(target{}); err != nil {
		return store.Relay{}, err
	}
	relays, err := tx.Relays(tx.s.network)
	if err != nil {
		return store.Relay{}, err
	}
	i := slices.IndexFunc(relays, func(r store.Relay) bool { return r.Name == c.Name || r.ID == c.Name })
	switch {
	case i < 0 && c.Name == relayName:
		return store.Relay{}, Invalid("the relay %q is part of the server and cannot be removed", c.Name)
	case i < 0:
		return store.Relay{}, fmt.Errorf("relay %q: %w", printable(c.Name, 64), ErrNotFound)
	}
	rl := relays[i]
	if err := tx.DeleteRelay(tx.s.network, rl.ID); err != nil {
		return rl, err
	}
	tx.did(relayTarget(rl), rl, nil)
	return rl, tx.relaysChanged()
}

func noRelayHere() *api.Error {
	return fail(http.StatusUnauthorized, api.CodeUnauthorized, "this key belongs to no relay of this network: it was removed, or never joined",
		"join it with a token of `weft-server keys create --relay` and an empty --data directory")
}

// relayLabel is the name of a relay for people.
func (s *Service) relayLabel(id string) string {
	if id == "" || id == s.auth.RelayID() {
		return relayName
	}
	if rl, ok := s.index.relay(id); ok {
		return rl.Name
	}
	return id
}

// Home returns the name of the relay where a node is connected, "" for none.
func (s *Service) Home(node cert.NodeID) string {
	if st, ok := s.presence.Get(node); ok && st.Online {
		return s.relayLabel(st.Relay)
	}
	return ""
}
