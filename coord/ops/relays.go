package ops

import (
	"net/http"
	"time"

	"weft/coord/store"
	"weft/overlay/api"
	"weft/overlay/cert"
)

// Standalone relays (package coord/standalone is the other side). They join with a
// token like devices, are listed in the config of all nodes, and receive from the
// server revocations and the current versions of the nodes connected to them.

const (
	relayLife   = 90 * 24 * time.Hour // of a certificate; the relay renews it at two thirds
	maxRelays   = 64
	relayWait   = 20 * time.Second // how long a sync waits for something new
	relaySilent = time.Minute      // without a sync: who it said was online may not be
	syncNodes   = 1000             // in one answer
)

// Relays lists the relays that run alone.
func (s *Service) Relays() []store.Relay { return s.index.allRelays() }

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
