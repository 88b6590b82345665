package ops

import (
	"context"
	"errors"
	"net/http"
	"time"

	"weft/coord/presence"
	"weft/coord/store"
	"weft/overlay/api"
	"weft/overlay/cert"
)

// handleConfig answers with a node's whole configuration, or with 304 if the node has it.
func (s *Service) handleConfig(ctx context.Context, c *caller, r *http.Request) (any, error) {
	since, err := sinceOf(r)
	if err != nil {
		return nil, err
	}
	// Read the versions first: if something changes in between, the node gets newer
	// data under an older number, and fetches once more.
	versions, ok := s.index.versions(c.id)
	if !ok {
		return nil, gone(store.ErrNotFound)
	}
	if since == versions.Config {
		s.index.tell(c.id, since)
		return statusOnly(http.StatusNotModified), nil
	}
	var node store.Node
	var fqdn string
	err = s.store.Read(ctx, func(rd *store.Reader) (err error) {
		if node, err = rd.Node(s.network, c.id); err == nil {
			fqdn, err = s.spelling(rd, c, node.Name+"."+s.suffix)
		}
		return err
	})
	if err != nil {
		return nil, gone(err)
	}
	config, err := s.configOf(node)
	if err != nil {
		return nil, err
	}
	config.Self.FQDN = fqdn
	s.index.tell(c.id, config.Version)
	return config, nil
}

// configOf builds a node's configuration. Its size does not depend on the number of nodes.
func (s *Service) configOf(node store.Node) (*api.Config, error) {
	v, ok := s.index.view(node.ID)
	if !ok {
		return nil, gone(store.ErrNotFound)
	}
	n := s.index.info()
	relays := []api.Relay{}
	if len(n.URLs) > 0 {
		relays = append(relays, api.Relay{ID: s.auth.RelayID(), Name: relayName, URLs: n.URLs, STUN: n.STUN})
	}
	for _, r := range s.index.allRelays() {
		relays = append(relays, api.Relay{ID: r.ID, Name: r.Name, URLs: r.URLs, STUN: r.STUN})
	}
	rules, overdue := v.rules()
	return &api.Config{
		Version: v.versions.Config, Versions: v.versions, ServerTime: s.now().UTC(),
		Network: s.network.String(), Suffix: s.suffix,
		Self: api.Self{
			ID: node.ID.String(), Name: node.Name, FQDN: node.Name + "." + s.suffix,
			IPv4: node.IPv4.String(), IPv6: store.IPv6Of(s.ipv6, node.IPv4).String(),
			User: node.User, Tags: append([]string{}, node.Tags...),
			IPv4Prefix: s.ipv4.String(), IPv6Prefix: s.ipv6.String(), Ephemeral: node.Ephemeral,
		},
		ServerURLs: n.URLs, ServerCAs: s.auth.ServerCAs(), NetworkCAs: s.auth.NetworkCAs(), Relays: relays,
		Rules: rules, Overdue: overdue, SignIn: signInOf(*s.signIn.Load(), node), Directory: v.initiates, Lookup: v.lookup,
		ReleaseKey: s.releaseKey(), Introductions: s.reportsIntroductions(node.Tags),
		DNS: s.dnsOf(node), RenewAfter: renewAfter,
	}, nil
}

// relayName is the name of the relay that is built into the server.
const relayName = "server"

func sinceOf(r *http.Request) (api.Version, error) {
	v, err := api.ParseVersion(r.URL.Query().Get("since"))
	if err != nil {
		return v, fail(http.StatusBadRequest, api.CodeBadRequest, "since: want EPOCH.N", "")
	}
	return v, nil
}

func isNotFound(err error) bool { return errors.Is(err, store.ErrNotFound) }

// peerOf returns the entry of a node in the directory of other nodes.
func (s *Service) peerOf(node *store.Node) api.Peer {
	p := api.Peer{Certificate: node.Certificate, Aliases: s.index.aliasesOf(node.ID)}
	state := s.stateOf(node.ID, node.Seen)
	p.Online, p.Relay, p.Unknown = state.Online, state.Relay, s.unsure(node.ID)
	if !state.Since.IsZero() {
		p.LastSeen = &state.Since
	}
	return p
}

// stateOf returns a node's presence. Since is when it was last online; for a node that is
// online, when the server last received something from it, or now if the server's relay does
// not know. stored is when it was last online by the database.
func (s *Service) stateOf(id cert.NodeID, stored time.Time) presence.State {
	st, ok := s.presence.Get(id)
	switch {
	case !ok:
		return presence.State{Since: stored}
	case st.Online:
		// A device that has just lost its power counts as online until its relay notices, so
		// show when something last arrived from it.
		st.Since = s.now().UTC()
		if heard, ok := s.relay.get().Heard(s.network, id); ok {
			st.Since = heard.UTC()
		}
	}
	return st
}
