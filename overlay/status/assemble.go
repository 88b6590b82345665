package status

import (
	"sort"
	"time"

	"weft/overlay/age"
	"weft/overlay/cert"
	"weft/overlay/internal/path"
)

// Facts are what a status is made of, as whoever knows them has them at Now.
type Facts struct {
	Now     time.Time // by this machine's clock
	WeftNow time.Time // by the server's, as far as it is known
	State   State
	Version string // of the daemon
	// Network and ServerURL are of the identity, "" without one.
	Network, ServerURL string
	ServerSeen         *time.Time // when the server last answered; nil: not since the start
	Health             []Health   // what was said; Of adds what follows from the facts
	// Self is this node's certificate. Nil while it is in no network, and nothing of
	// the following counts then.
	Self *cert.Node
	// Up says that the node is not down; nothing of the following counts then.
	Up            bool
	Online        bool   // connected to its relay
	Relay         string // its name
	ServerOffline bool   // it did not answer
	Skew          time.Duration
	Peers         []PeerFacts // the nodes known, in any order; Self may be one
}

// PeerFacts are what is known of a peer.
type PeerFacts struct {
	Node *cert.Node
	// Shown says that it is in the directory, or asked for: others are shown only
	// with a tunnel.
	Shown    bool
	Told     Presence  // by the server or a relay
	LastSeen time.Time // by the server, in its time; zero: never, or not known
	Tunnel   *Tunnel   // nil: there is none
}

// Tunnel is what is known of the tunnel with a peer. Zero times are of what has not
// happened.
type Tunnel struct {
	Made          time.Time
	Gone          time.Time     // when a relay last said that the peer is not there
	Via           string        // name of the relay, "" while it is looked for
	Pinged        time.Duration // round trip of the last ping through it, 0 before
	Path          *path.Path    // nil: there is no way but the relay
	PathRTT       time.Duration // of Path, 0 before it is measured
	Rx, Tx        uint64        // bytes
	Heard         time.Time     // when it last brought anything
	LastHandshake time.Time
}

// The reasons of what is no path of an agent.
var (
	relayReason   = path.Reason{Text: "this device has no UDP socket; one would make direct paths possible", Short: "no UDP here"}
	idleReason    = path.Reason{Text: "no tunnel: nothing was sent lately"}
	unknownReason = path.Reason{Text: "no tunnel; whether the peer is online is not known: the server has not said so since this daemon started"}
	offlineReason = path.Reason{Text: "not connected to a relay"}
)

// clockOff is how far off this machine's clock may be without a warning.
const clockOff = 5 * time.Minute

// Of makes the status of the facts. It keeps no reference to Health.
func Of(f Facts) Status {
	st := Status{
		Schema: Schema, State: f.State, Network: f.Network, Version: f.Version,
		Server: ServerStatus{URL: f.ServerURL, LastSeen: f.ServerSeen},
		Peers:  []PeerStatus{}, Health: append([]Health{}, f.Health...),
	}
	if f.Self == nil {
		return st
	}
	st.Self = SelfStatus{
		ID: f.Self.ID.String(), Name: f.Self.Name, FQDN: f.Self.FQDN,
		IPv4: f.Self.IPv4.String(), IPv6: f.Self.IPv6.String(), CertificateExpires: utc(f.Self.NotAfter),
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
		st.Health = append(st.Health, Health{Code: CodeClock, Message: "this machine's clock is off by " + age.Of(f.Skew.Abs()) + "; weft goes by the server's, other programs may not"})
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
	// weftTime is when something was by the clock that the server's times go by.
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
		s.Relay, s.RxBytes, s.TxBytes, s.LastHandshake = t.Via, t.Rx, t.Tx, utc(t.LastHandshake)
		if rtt := t.roundTrip(); rtt > 0 {
			ms := float64(rtt.Microseconds()) / 1000
			s.RTTms = &ms
		}
		s.KeyExchange = "X25519MLKEM768"
		if at := weftTime(t.Heard); !t.Heard.IsZero() && (s.LastSeen == nil || at.After(*s.LastSeen)) {
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

// Shown is the path of a tunnel, for people. A quiet one is idle: its next packet
// takes the relay, and perhaps only that one. The endpoint is that of a direct path.
func (t *Tunnel) Shown() (kind PathKind, why path.Reason, endpoint string) {
	switch {
	case t.Path == nil:
		return PathRelay, relayReason, ""
	case t.Path.Kind == path.Direct:
		return PathDirect, t.Path.Reason, t.Path.Via.Addr.String()
	case t.Path.Kind == path.Lane:
		return PathLane, t.Path.Reason, ""
	case t.Path.Quiet:
		return PathIdle, t.Path.Reason, ""
	}
	return PathRelay, t.Path.Reason, ""
}

// roundTrip is that of the way in use, else that of the last ping.
func (t *Tunnel) roundTrip() time.Duration {
	if t.Path != nil && t.Path.Kind != path.Relay && t.PathRTT > 0 {
		return t.PathRTT
	}
	return t.Pinged
}

// Presence is whether a peer is there, as far as is known here.
type Presence struct {
	Online bool
	At     time.Time // when that was known; zero: nobody has said
}

// heardLately is how long who was heard through the tunnel is there, whatever
// anybody says.
const heardLately = 2 * time.Second

// presence is what is known of a peer at now. What was said last counts, by the
// server or a relay, or by the tunnel, if there is one.
func (p PeerFacts) presence(now time.Time) Presence {
	is, t := p.Told, p.Tunnel
	if t == nil {
		return is
	}
	for _, e := range [...]Presence{{true, t.Made}, {false, t.Gone}, {true, t.Heard}} {
		if e.At.After(is.At) {
			is = e
		}
	}
	if !t.Heard.IsZero() && now.Sub(t.Heard) < heardLately {
		is = Presence{true, t.Heard}
	}
	return is
}

// LateRenewal returns a warning when the certificate should have been renewed long
// ago: with 21 days left of 90, "" before. It is renewed with a third of its life
// left, unless the server says otherwise. now is weft time.
func LateRenewal(self *cert.Node, now time.Time) string {
	left := self.NotAfter.Sub(now)
	switch {
	case left > self.NotAfter.Sub(self.NotBefore)*7/30:
		return ""
	case left <= 0:
		return "this device's certificate ended " + age.Of(-left) + " ago: other devices do not believe it until it is renewed, which happens when the server is reached"
	}
	return "this device's certificate ends in " + age.Of(left) + " and could not be renewed: see to it that the server is reached"
}

// utc returns a time as the contract has it: in UTC, or null.
func utc(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}
