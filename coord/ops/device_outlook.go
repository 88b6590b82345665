package ops

import (
	"context"
	"slices"
	"strings"
	"time"

	"weft/coord/store"
	"weft/overlay/cert"
)

// Outlook is what the server knows of how a device can be reached: its connection to a
// relay, and what speaks for a reason why it has none. The server is not told which path
// two devices use.
type Outlook struct {
	// Here says that its relay connection, if it has one, is to the relay in this process,
	// which can measure the round trip.
	Here bool
	// Since is when that connection was made, or when the device was last online; zero for
	// unknown.
	Since   time.Time
	Traffic *Traffic // through that connection; nil for unknown
	Causes  []Cause  // while it is offline: the likeliest first
	// Reports are the latest introductions that the device reported; none for who may not
	// read them.
	Reports []store.Introduction
}

// Traffic is what a device had a relay forward since it connected there, and what was
// forwarded to it, in bytes. What goes on direct paths is not in it.
type Traffic struct{ Sent, Received uint64 }

// CauseKind says what may keep a device offline.
type CauseKind string

// The kinds of Cause.
const (
	CauseNever       CauseKind = "never"       // it joined, and was never connected since
	CauseRelay       CauseKind = "relay"       // its relay is not heard of either
	CauseSite        CauseKind = "site"        // others at its address went with it, and none is there
	CauseAlone       CauseKind = "alone"       // others at its address are online
	CauseCertificate CauseKind = "certificate" // its certificate has ended
	CauseClock       CauseKind = "clock"       // it reported impossible times
	CauseVersion     CauseKind = "version"     // it runs another version than the server
	CauseItself      CauseKind = "itself"      // nothing else is known
)

// Cause is a likely reason why a device is offline, or what narrows it down.
type Cause struct {
	Kind  CauseKind
	Count int       // of CauseSite and CauseAlone: devices that the asker may see
	Name  string    // of CauseRelay: of the relay; of CauseVersion: the server's version
	At    time.Time // of CauseRelay: when it was last heard of; of CauseCertificate: its end
}

const (
	// together is how far apart devices at one address go offline when their site does:
	// a silent one is noticed within 140 s, and its last sign of life may be as old.
	together = 5 * time.Minute
	// latestReports is how many introductions an Outlook has.
	latestReports = 5
)

// Outlook says what is known of how a device can be reached.
func (s *Service) Outlook(ctx context.Context, a Actor, id cert.NodeID) (Outlook, error) {
	var n store.Node
	err := s.store.Read(ctx, func(r *store.Reader) (err error) { n, err = r.Node(s.network, id); return err })
	if err == nil {
		err = opDeviceRead.authorize(a, deviceTarget(n))
	}
	if err != nil {
		return Outlook{}, About(KindDevice, id.String(), err)
	}
	st, known := s.presence.Get(id)
	out := Outlook{Here: st.Relay == s.auth.RelayID(), Since: n.Seen}
	if known {
		out.Since = st.Since
	}
	if sent, received, ok := s.relay.get().Traffic(s.network, id); ok && out.Here && st.Online {
		out.Traffic = &Traffic{sent, received}
	}
	if a.ReadsAudit() {
		list, err := s.Introductions(ctx, a, IntroductionQuery{Device: id.String(), Limit: latestReports})
		if err != nil {
			return out, err
		}
		out.Reports = list.Introductions
	}
	if st.Online || s.unsure(id) {
		return out, nil
	}
	f := absence{now: s.now(), since: out.Since, expires: n.Expires, software: n.Software, server: s.software, reports: out.Reports}
	if rl, ok := s.index.relay(st.Relay); ok {
		f.relay = rl.Name
		f.relayHeard, f.relayThere = s.RelayHeard(rl.ID)
	}
	for other, o := range s.presence.Beside(id) {
		if opDeviceRead.authorize(a, s.index.targetOf(other)) != nil {
			continue
		}
		if o.Online {
			f.there++
		} else if o.Since.Sub(out.Since).Abs() <= together {
			f.gone++
		}
	}
	out.Causes = causesOf(f)
	return out, nil
}

// absence is what causesOf looks at. Its times are zero for never.
type absence struct {
	now, since, expires time.Time
	software, server    string
	relay               string // its last one, if that runs alone
	relayHeard          time.Time
	relayThere          bool
	there, gone         int // others at its address: online, and offline since about the same time
	reports             []store.Introduction
}

// causesOf says why a device may be offline, the likeliest first. There is at least one.
func causesOf(f absence) (list []Cause) {
	add := func(c Cause) { list = append(list, c) }
	switch {
	case f.since.IsZero():
		add(Cause{Kind: CauseNever})
	case f.relay != "" && !f.relayThere:
		add(Cause{Kind: CauseRelay, Name: f.relay, At: f.relayHeard})
	case f.there == 0 && f.gone > 0:
		add(Cause{Kind: CauseSite, Count: f.gone})
	case f.there > 0:
		add(Cause{Kind: CauseAlone, Count: f.there})
	default:
		add(Cause{Kind: CauseItself})
	}
	if f.expires.Before(f.now) {
		add(Cause{Kind: CauseCertificate, At: f.expires})
	}
	for _, r := range f.reports {
		if slices.Contains(strings.Fields(r.Doubts), DoubtTime) {
			add(Cause{Kind: CauseClock})
			break
		}
	}
	if f.software != f.server && f.software != "" {
		add(Cause{Kind: CauseVersion, Name: f.server})
	}
	return list
}
