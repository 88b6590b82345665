package ops

import (
	"net/http"
	"time"

	"weft/coord/store"
	"weft/overlay/api"
	"weft/overlay/cert"
)

// Standalone relays run on machines of their own (package coord/standalone). They join with a
// token like devices, and are listed in the configs of all nodes. The server sends them
// revocations, and the current versions of the nodes that are connected to them.

const (
	relayLife   = 90 * 24 * time.Hour // of a certificate; the relay renews it after two thirds
	maxRelays   = 64
	relayWait   = 20 * time.Second // how long a sync waits for news
	relaySilent = time.Minute      // after which a relay that sends nothing counts as offline, and so do its nodes
	syncNodes   = 1000             // nodes in one answer to a sync
)

// Relays lists the standalone relays.
func (s *Service) Relays() []store.Relay { return s.index.allRelays() }

func noRelayHere() *api.Error {
	return fail(http.StatusUnauthorized, api.CodeUnauthorized, "this key belongs to no relay of this network: it was removed, or never joined",
		"join it with a token of `weft-server keys create --relay` and an empty --data directory")
}

// relayLabel returns the name of a relay for people, or its id if the relay is unknown.
func (s *Service) relayLabel(id string) string {
	if id == "" || id == s.auth.RelayID() {
		return relayName
	}
	if rl, ok := s.index.relay(id); ok {
		return rl.Name
	}
	return id
}

// Home returns the name of the relay to which a node is connected, "" for none.
func (s *Service) Home(node cert.NodeID) string {
	if st, ok := s.presence.Get(node); ok && st.Online {
		return s.relayLabel(st.Relay)
	}
	return ""
}
