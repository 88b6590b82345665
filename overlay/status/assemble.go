package status

import (
	"sort"
	"time"

	"weft/overlay/age"
	"weft/overlay/cert"
	"weft/overlay/fips"
	"weft/overlay/internal/path"
)

// Facts are the input of a status, as known at Now.
type Facts struct {
	Now     time.Time // by this machine's clock
	WeftNow time.Time // by the server's clock, as far as it is known
	State   State
	Version string // of the daemon
	// Network and ServerURL belong to the identity, "" without one.
	Network, ServerURL string
	ServerSeen         *time.Time // time of the server's last answer; nil: none since the start
	FIPS               fips.Status
	Health             []Health // the node's warnings; Of adds those that follow from the facts
	// Self is this node's certificate. It is nil while the node is in no network; the
	// fields below do not count then.
	Self *cert.Node
	// Reports says that it tells the server who introduces themselves to it.
	Reports bool
	SignIn  *SignIn // nil: its person never has to sign it in again
	// Up means that the node is not down; otherwise the fields below do not count.
	Up            bool
	Online        bool   // connected to its relay
	Relay         string // its name
	ServerOffline bool   // the server did not answer
	Skew          time.Duration
	Peers         []PeerFacts // the known nodes, in any order; Self may be one
}

// PeerFacts are the known facts about a peer.
type PeerFacts struct {
	Node *cert.Node
	// Shown means that the peer is in the directory, or was asked for by name: other
	// peers are shown only if they have a tunnel.
	Shown    bool
	Reported Presence  // as reported by the server or a relay
	LastSeen time.Time // as the server reports, by its clock; zero: never, or unknown
	Tunnel   *Tunnel   // nil: there is none
}

// Tunnel is the state of the tunnel with a peer. A zero time means that the event has
// not happened.
type Tunnel struct {
	Made          time.Time
	Gone          time.Time       // when a relay last reported that the peer is not connected
	Relay         string          // name of the relay, "" while it is being looked up
	Pinged        time.Duration   // round trip of the last ping through it, 0 before
	Path          *path.Selection // nil: there is no path but the relay
	PathRTT       time.Duration   // of Path, 0 before it is measured
	Rx, Tx        uint64          // bytes
	LastReceived  time.Time       // when a packet last arrived through it
	LastHandshake time.Time
	Suite         string    // intro.Suite
	KeyExchange   string    // of the last introduction
	KeysSince     time.Time // when the present key for sending began; zero: unknown
	KeysPackets   uint64    // sent under it
}

// The reasons for paths that do not come from an agent.
var (
	relayReason   = path.Reason{Text: "this device has no UDP socket; one would make direct paths possible", Short: "no UDP here"}
	idleReason    = path.Reason{Text: "no tunnel: nothing was sent lately"}
	unknownReason = path.Reason{Text: "no tunnel; whether the peer is online is unknown: the server has not reported it since this daemon started"}
	offlineReason = path.Reason{Text: "not connected to a relay"}
)

// clockOff is how wrong this machine's clock may be without a warning.
const clockOff = 5 * time.Minute

// Of turns facts into a status. It keeps no reference to Health.
func Of(f Facts) Status {
	st := Status{
		Schema: Schema, State: f.State, Network: f.Network, Version: f.Version,
		Server: ServerStatus{URL: f.ServerURL, LastSeen: f.ServerSeen},
		Peers:  []PeerStatus{}, Health: append([]Health{}, f.Health...), FIPS: f.FIPS,
	}
	if f.Self == nil {
		return st
	}
	st.Self = SelfStatus{
		ID: f.Self.ID.String(), Name: f.Self.Name, FQDN: f.Self.FQDN,
		IPv4: f.Self.IPv4.String(), IPv6: f.Self.IPv6.String(), CertificateExpires: utc(f.Self.NotAfter),
		ReportsIntroductions: f.Reports, SignIn: f.SignIn,
	}
	if h, ok := signInHealth(f.SignIn); ok {
		st.Health = append(st.Health, h)
	}
	if !f.Up {
		return st
	}
	st.Self.Online, st.Self.Relay = f.Online, f.Relay
	st.Server.Online = f.Online && !f.ServerOffline
	if late := LateRenewal(f.Self, f.WeftNow); late != "" {
		st.Health = append(st.Health, Health{Code: CodeCertificate, Message: late})
	}
	if f.Skew.Abs() > clockOff {
		st.Health = append(st.Health, Health{Code: CodeClock, Message: "this machine's clock is off by " + age.Of(f.Skew.Abs()) + "; weft uses the server's time, other programs may not"})
	}
	st.Time = utc(f.WeftNow)
	for _, p := range f.Peers {
		if p.Node.ID != f.Self.ID && (p.Shown || p.Tunnel != nil) {
			st.Peers = append(st.Peers, p.status(&f))
		}
	}
	sort.Slice(st.Peers, func(i, j int) bool { return st.Peers[i].Name < st.Peers[j].Name })
	return st
}

func (p PeerFacts) status(f *Facts) PeerStatus {
	// weftTime converts a time to the clock of the server's times.
	weftTime := func(at time.Time) *time.Time { return utc(f.WeftNow.Add(-f.Now.Sub(at))) }
	s := PeerStatus{
		ID: p.Node.ID.String(), Name: p.Node.Name, FQDN: p.Node.FQDN,
		IPv4: p.Node.IPv4.String(), IPv6: p.Node.IPv6.String(), Path: PathIdle, LastSeen: utc(p.LastSeen),
	}
	is := p.presence(f.Now)
	why := idleReason
	if is.At.IsZero() {
		why = unknownReason
	}
	if t := p.Tunnel; t != nil {
		s.Path, why, s.Endpoint = t.Shown()
		s.Relay, s.RxBytes, s.TxBytes, s.LastHandshake = t.Relay, t.Rx, t.Tx, utc(t.LastHandshake)
		if rtt := t.roundTrip(); rtt > 0 {
			ms := float64(rtt.Microseconds()) / 1000
			s.RTTms = &ms
		}
		s.Suite, s.KeyExchange = t.Suite, t.KeyExchange
		if !t.KeysSince.IsZero() {
			s.KeysSince, s.KeysPackets = weftTime(t.KeysSince), &t.KeysPackets
		}
		if at := weftTime(t.LastReceived); !t.LastReceived.IsZero() && (s.LastSeen == nil || at.After(*s.LastSeen)) {
			s.LastSeen = at
		}
	}
	s.Online = is.Online
	if !is.At.IsZero() {
		s.PresenceAt = weftTime(is.At)
		if !is.Online {
			s.Path, why, s.Endpoint = PathOffline, offlineReason, ""
		}
	}
	s.PathReason, s.PathNote = why.Text, why.Short
	return s
}

// Shown is the path of a tunnel, for people. A quiet path counts as idle: its next
// packet takes the relay, perhaps only that one. The endpoint is that of a direct path.
func (t *Tunnel) Shown() (kind PathKind, why path.Reason, endpoint string) {
	switch {
	case t.Path == nil:
		return PathRelay, relayReason, ""
	case t.Path.Kind == path.Direct:
		return PathDirect, t.Path.Reason, t.Path.Path.Addr.String()
	case t.Path.Kind == path.RelayedUDP:
		return PathLane, t.Path.Reason, ""
	case t.Path.Quiet:
		return PathIdle, t.Path.Reason, ""
	}
	return PathRelay, t.Path.Reason, ""
}

// roundTrip is that of the current path, or else that of the last ping.
func (t *Tunnel) roundTrip() time.Duration {
	if t.Path != nil && t.Path.Kind != path.Relay && t.PathRTT > 0 {
		return t.PathRTT
	}
	return t.Pinged
}

// Presence is whether a peer is online, as far as is known here.
type Presence struct {
	Online bool
	At     time.Time // when that was known; zero: unknown
}

// receivedLately is how long a peer counts as online after a packet arrived through the
// tunnel, whatever the server or a relay reports.
const receivedLately = 2 * time.Second

// presence is the presence of a peer at now. The latest report counts, from the server,
// a relay, or the tunnel if there is one.
func (p PeerFacts) presence(now time.Time) Presence {
	is, t := p.Reported, p.Tunnel
	if t == nil {
		return is
	}
	for _, e := range [...]Presence{{true, t.Made}, {false, t.Gone}, {true, t.LastReceived}} {
		if e.At.After(is.At) {
			is = e
		}
	}
	if !t.LastReceived.IsZero() && now.Sub(t.LastReceived) < receivedLately {
		is = Presence{true, t.LastReceived}
	}
	return is
}

// LateRenewal returns a warning if the certificate is long due for renewal: with 21
// days left of 90; otherwise "". It is renewed with a third of its life left, unless
// the server decides otherwise. now is weft time.
func LateRenewal(self *cert.Node, now time.Time) string {
	left := self.NotAfter.Sub(now)
	switch {
	case left > self.NotAfter.Sub(self.NotBefore)*7/30:
		return ""
	case left <= 0:
		return "this device's certificate ended " + age.Of(-left) + " ago: other devices refuse it until it is renewed, which happens once the server answers"
	}
	return "this device's certificate ends in " + age.Of(left) + " and could not be renewed: check the connection to the server"
}

// signInHealth returns a warning of a node that has to be signed in again soon, or had to be.
func signInHealth(s *SignIn) (h Health, ok bool) {
	if s == nil || !s.Soon {
		return h, false
	}
	by := s.Due.UTC().Format("2 January 2006 15:04 MST")
	if s.Overdue {
		return Health{Code: CodeSignInOverdue, Message: "this device had to be signed in again by " + by + ", and reaches nothing until that is done: weft up"}, true
	}
	return Health{Code: CodeSignIn, Message: "this device has to be signed in again by " + by + ": weft up"}, true
}

// utc returns a time in the form of the contract: in UTC, or null.
func utc(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}
