package api

import "time"

// Requests of a relay that runs alone to the coordination server, over the same transport
// as a node's:
//
//	POST /v1/relay/join    RelayJoinRequest  -> RelayJoinResponse   self-signed certificate over its key
//	POST /v1/relay/renew   RelayRenewRequest -> RelayRenewResponse
//	POST /v1/relay/sync    RelaySync   -> RelayState      waits up to 20 s for something new
//	POST /v1/relay/report  RelayReport -> RelayReported
//	POST /v1/relay/crl     application/pkix-crl, DER -> 204: a list newer than the server's own
//
// The relay repeats sync as soon as it has an answer, so that it learns of a revocation
// at once. Beside that it reports who connected and disconnected (report).

// MaxRelayEvents bounds the events of one report.
const MaxRelayEvents = 300

// RelayJoinRequest asks for a relay's first certificate. Repeating it with the
// same key and token is answered with the same relay.
type RelayJoinRequest struct {
	Protocol int      `json:"protocol"`
	Secret   []byte   `json:"secret"` // the token's secret
	CSR      []byte   `json:"csr"`    // PKCS #10, DER, signed by the relay's key
	Name     string   `json:"name"`   // the name to ask for
	URLs     []string `json:"urls"`   // https://HOST:PORT, 1 to 8
	STUN     []string `json:"stun"`   // host:port, at most 8
	Software string   `json:"software"`
}

// RelayJoinResponse is what a relay needs to start.
type RelayJoinResponse struct {
	Name        string     `json:"name"`
	Certificate []byte     `json:"certificate"` // DER, under the first of Trust.ServerCAs
	Trust       RelayTrust `json:"trust"`
	CRL         []byte     `json:"crl"` // DER
}

// RelayTrust lists the CAs that a relay trusts.
type RelayTrust struct {
	Network    string   `json:"network"` // NetworkID, hex
	ServerURLs []string `json:"server_urls"`
	ServerCAs  [][]byte `json:"server_cas"`  // DER
	NetworkCAs [][]byte `json:"network_cas"` // DER
}

// RelayRenewRequest asks for a new certificate over the same key.
type RelayRenewRequest struct {
	Protocol int    `json:"protocol"`
	CSR      []byte `json:"csr"`
}

// RelayRenewResponse carries the new certificate.
type RelayRenewResponse struct {
	Certificate []byte     `json:"certificate"`
	Trust       RelayTrust `json:"trust"`
}

// RelaySync says what the relay has and asks for what is new.
type RelaySync struct {
	Protocol int      `json:"protocol"`
	Instance string   `json:"instance"` // of the last answer, "" for none
	Ack      uint64   `json:"ack"`      // Seq of the last answer
	CRL      uint64   `json:"crl"`      // number of the relay's CRL
	URLs     []string `json:"urls"`
	STUN     []string `json:"stun"`
	Software string   `json:"software"`
	// Relayed is how many bytes the relay has sent on between nodes since it started. Relays
	// before 2026-11-30 do not say, and servers before that do not read it.
	Relayed *uint64 `json:"relayed,omitempty"`
}

// RelayState is what is new. When Instance differs from that of the last answer, the
// server has restarted and forgotten who is connected: the relay reports all of them.
type RelayState struct {
	Instance string `json:"instance"`
	Seq      uint64 `json:"seq"`
	CRL      []byte `json:"crl,omitempty"` // DER, when it is not the relay's
	// WantCRL asks for the relay's list, which is newer than the server's, because the
	// server was restored from a backup.
	WantCRL bool        `json:"want_crl,omitempty"`
	Nodes   []RelayNode `json:"nodes,omitempty"` // current versions for the nodes that the relay has reported
	Gone    []string    `json:"gone,omitempty"`  // NodeIDs of reported nodes that no longer exist
	Names   Version     `json:"names,omitzero"`  // Versions.Names, the same for all nodes
	Trust   *RelayTrust `json:"trust,omitempty"` // with a new Instance
}

// RelayNode holds the versions that a node should have.
type RelayNode struct {
	ID       string   `json:"id"` // NodeID, hex
	Versions Versions `json:"versions"`
}

// RelayReport says who connected and disconnected. A new Run cancels all earlier reports
// of the relay.
type RelayReport struct {
	Run    string       `json:"run"` // random per start of the relay
	Events []RelayEvent `json:"events"`
	// All is set once the reports since a new Instance have covered everybody who is
	// connected: it is that Instance. "" means that more reports follow. Relays before
	// 2026-11-29 never set it.
	All string `json:"all,omitempty"`
}

// RelayEvent is one home connection that was made or ended. Conn grows with each
// connection of a run: an event with a lower number than the last one of its node is
// late.
type RelayEvent struct {
	Node   string    `json:"node"` // NodeID, hex
	Conn   uint64    `json:"conn"`
	Online bool      `json:"online"`
	At     time.Time `json:"at"`
	Addr   string    `json:"addr"` // as the relay sees it, may be empty
}

// RelayReported answers a report.
type RelayReported struct {
	Instance string   `json:"instance"`
	Unknown  []string `json:"unknown,omitempty"` // NodeIDs that do not exist
}
