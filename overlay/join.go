package overlay

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"weft/overlay/api"
	"weft/overlay/api/client"
	"weft/overlay/cert"
	"weft/overlay/link"
	"weft/overlay/status"
)

// join turns a token into a certificate. The identity key is on disk before
// the server is asked, so that a join whose answer got lost is repeated by the
// same device and not by a second one.
func (n *Node) join(ctx context.Context, token string) error {
	tok, err := cert.ParseToken(token)
	if err != nil {
		return &status.Error{Kind: status.KindUsage, Message: err.Error()}
	}
	id, err := n.identityFor(tok)
	if err != nil {
		return err
	}
	csr, err := cert.NewCSR(id.key)
	if err != nil {
		return fmt.Errorf("join: %w", err)
	}
	roots, err := cert.NewServerRoots([]cert.Pin{tok.Server}, nil)
	if err != nil {
		return fmt.Errorf("join: %w", err)
	}
	shown, err := cert.SelfSigned(id.key)
	if err != nil {
		return fmt.Errorf("join: %w", err)
	}
	dialer := n.dialer(dialTo{urls: tok.URLs, roots: roots, shown: shown})
	hostname := n.cfg.Hostname
	if hostname == "" {
		hostname, _ = os.Hostname()
	}
	rt := dialer.Transport()
	defer closeIdle(rt)
	res, err := client.New(rt, n.contact).Join(ctx, api.JoinRequest{
		Protocol: api.Protocol, Secret: tok.Secret, CSR: csr, Hostname: hostname,
		OS: runtime.GOOS + "/" + runtime.GOARCH, Software: n.cfg.Version,
	})
	if err != nil {
		return joinError(err, tok)
	}
	n.clock.Contact(res.Config.ServerTime)
	return n.adopt(id, res)
}

// identityFor returns the identity to join with: the one on disk when it
// belongs to the token's network, else a new one.
func (n *Node) identityFor(tok cert.Token) (*identity, error) {
	n.keeper.disk.Lock()
	defer n.keeper.disk.Unlock()
	n.mu.Lock()
	old, state := n.id, n.state
	n.mu.Unlock()
	if state == nil {
		return nil, errors.New("overlay: the node is not started")
	}
	network := tok.Network.NetworkID()
	if old != nil && old.Network != network && old.joined() {
		return nil, &status.Error{Kind: status.KindUsage,
			Message: "this device belongs to another network", Hint: "run: weft logout, or use another --state directory and --socket for a second network"}
	} else if old != nil && old.Network == network {
		id := *old
		id.URLs, id.ServerPins = mergeURLs(tok.URLs, old.URLs), []cert.Pin{tok.Server}
		return &id, nil
	}
	key, err := cert.NewKey()
	if err != nil {
		return nil, fmt.Errorf("make identity key: %w", err)
	}
	pem, err := cert.MarshalKey(key)
	if err != nil {
		return nil, err
	}
	id := &identity{Schema: identitySchema, Key: string(pem), Network: network, ServerPins: []cert.Pin{tok.Server}, URLs: tok.URLs, key: key}
	if err := state.saveIdentity(id); err != nil {
		return nil, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.id = id
	return id, nil
}

// adopt makes the server's answer this node's identity, on disk first.
func (n *Node) adopt(id *identity, res *api.JoinResponse) error {
	joined := *id
	joined.Certificate = res.Certificate
	joined.NetworkCAs = res.Config.NetworkCAs
	joined.ServerTime = res.Config.ServerTime
	joined.URLs = mergeURLs(goodURLs(id, res.Config.ServerURLs), id.URLs)
	snap, err := makeSnapshot(&joined, &res.Config, nil)
	if err != nil {
		return fmt.Errorf("join: the server's answer is not usable: %w", err)
	}
	if !id.key.PublicKey.Equal(snap.self.Leaf.PublicKey) {
		return errors.New("join: the server certified another key than ours")
	}
	n.keeper.disk.Lock()
	defer n.keeper.disk.Unlock()
	n.mu.Lock()
	closed := n.closed
	n.mu.Unlock()
	if closed {
		return errors.New("overlay: the node is closed")
	}
	if err := n.state.saveJSON(configFile, &res.Config); err != nil {
		return err
	}
	if err := n.state.saveIdentity(&joined); err != nil {
		return err
	}
	n.mu.Lock()
	if cur, ok := n.snap.get(); ok && cur.self.ID == snap.self.ID {
		snap.crl = cur.crl // a join that is repeated forgets nobody who was deleted
	}
	n.id = &joined
	n.snap.set(snap)
	n.mu.Unlock()
	n.log.Info(fmt.Sprintf("joined as %s, %s", snap.self.FQDN, snap.self.IPv4))
	n.keep(releaseFile)
	return nil
}

// makeSnapshot checks everything that a config and a certificate say about
// trust before any of it is used.
func makeSnapshot(id *identity, config *api.Config, crl []byte) (*snapshot, error) {
	roots, err := cert.NewNetworkRoots(id.Network, config.NetworkCAs)
	if err != nil {
		return nil, err
	}
	serverRoots, err := cert.NewServerRoots(id.ServerPins, config.ServerCAs)
	if err != nil {
		return nil, err
	}
	self, err := roots.VerifyNodeAnyTime(id.Certificate)
	if err != nil {
		return nil, err
	}
	s := &snapshot{self: self, config: config, roots: roots, serverRoots: serverRoots}
	if len(crl) > 0 {
		// A damaged file is fetched again; nothing newer is lost by that.
		s.crl, _ = roots.VerifyCRL(crl)
	}
	// A config is used without the addresses that are of no use, so that one
	// bad row on the server costs no more than itself.
	usable := *config
	usable.ServerURLs = goodURLs(id, config.ServerURLs)
	usable.Relays = nil
	for _, r := range config.Relays {
		if r.URLs = goodURLs(id, r.URLs); len(r.URLs) > 0 && len(usable.Relays) < maxRelays {
			usable.Relays = append(usable.Relays, r)
		}
	}
	if len(config.Relays) > 0 && len(usable.Relays) == 0 {
		return nil, errors.New("none of the relays has a usable address")
	}
	if err := checkPrefixes(&usable, self); err != nil {
		return nil, err
	}
	s.config = &usable
	return s, nil
}

// Bounds of what a server may tell a node.
const (
	maxURLs   = 8 // of the server, and of each relay
	maxRelays = 64
)

// goodURLs returns the addresses that a node may be sent to: https, and not the
// machine itself or its link, unless it joined by such an address. A server
// must not be able to make its nodes knock at what is private to them.
func goodURLs(id *identity, urls []string) []string {
	local := slices.ContainsFunc(id.URLs, isLocal)
	var out []string
	for _, u := range urls {
		if cert.CheckURL(u) == nil && (local || !isLocal(u)) && len(out) < maxURLs {
			out = append(out, u)
		}
	}
	return out
}

// isLocal reports whether a URL leads to the machine itself or no farther than
// its link (where clouds keep their metadata).
func isLocal(s string) bool {
	u, err := url.Parse(s)
	if err != nil {
		return true
	}
	host := strings.TrimSuffix(strings.ToLower(u.Hostname()), ".")
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	ip = ip.Unmap()
	return err == nil && (ip.IsLoopback() || ip.IsUnspecified() || ip.IsLinkLocalUnicast() || ip.IsMulticast())
}

// checkPrefixes refuses address ranges that are no network's: what is in them
// goes to the overlay.
func checkPrefixes(config *api.Config, self *cert.Node) error {
	for _, p := range []struct {
		text string
		addr netip.Addr
		bits int
	}{{config.Self.IPv4Prefix, self.IPv4, 8}, {config.Self.IPv6Prefix, self.IPv6, 32}} {
		if p.text == "" {
			continue
		}
		prefix, err := netip.ParsePrefix(p.text)
		if err != nil || prefix.Bits() < p.bits || !prefix.Contains(p.addr) {
			return fmt.Errorf("address range %q is none that %s can be in", p.text, p.addr)
		}
	}
	return nil
}

// belongs refuses a node whose addresses cannot be its own: ours, or outside of
// the network's range.
func (s *snapshot) belongs(n *cert.Node) error {
	if n.ID == s.self.ID {
		return nil
	}
	for _, p := range []struct {
		text string
		addr netip.Addr
	}{{s.config.Self.IPv4Prefix, n.IPv4}, {s.config.Self.IPv6Prefix, n.IPv6}} {
		prefix, err := netip.ParsePrefix(p.text)
		if s.self.Has(p.addr) || err == nil && !prefix.Contains(p.addr) {
			return fmt.Errorf("certificate of %s: address %v is not its own: %w", n.Name, p.addr, cert.ErrUntrusted)
		}
	}
	return nil
}

// startJoining joins at Start. A refusal is final; a server out of reach is
// tried again in the background, since a device may boot before its network.
func (n *Node) startJoining(ctx context.Context, token string) error {
	err := n.Up(ctx, token)
	if err == nil || refusedForGood(err) || status.KindOf(err) == status.KindUsage {
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
			if !sleep(n.bgCtx, jitter(wait)) {
				return
			}
			n.mu.Lock()
			done := n.id.joined()
			n.mu.Unlock()
			if done { // by weft up, meanwhile
				break
			}
			err := n.Up(n.bgCtx, token)
			if err == nil {
				break
			}
			n.health.Set(status.CodeJoinWaiting, fmt.Sprintf("joining: %v", err))
			if refusedForGood(err) {
				n.log.Error("join: refused", "err", err)
				return
			}
		}
		n.health.Clear(status.CodeJoinWaiting)
	})
	return nil
}

// joinError says what went wrong in the words of the person who pasted the
// token.
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

// refusal keeps the cause beside what the user is told.
type refusal struct {
	said  *status.Error
	cause error
}

func (r *refusal) Error() string   { return r.said.Error() }
func (r *refusal) Unwrap() []error { return []error{r.said, r.cause} }

func wrapRefusal(e *status.Error, cause error) error { return &refusal{e, cause} }

// refusedForGood reports whether trying the same again is useless.
func refusedForGood(err error) bool {
	var e *api.Error
	if errors.As(err, &e) {
		return e.Status >= 400 && e.Status < 500 && e.Status != http.StatusTooManyRequests && e.Status != http.StatusRequestTimeout
	}
	return errors.Is(err, cert.ErrUntrusted)
}

// mergeURLs keeps every address ever learned, the current ones first, so that
// a server can move by adding its new address before it goes.
func mergeURLs(current, old []string) []string {
	out := slices.Clone(current)
	for _, u := range old {
		if !slices.Contains(out, u) && len(out) < maxURLs {
			out = append(out, u)
		}
	}
	return out
}

var _ http.RoundTripper = (*link.Dialer)(nil).Transport()
