package ops

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"weft/coord/store"
	"weft/overlay/cert"
)

// Device is a device as people and programs see it: its row in the database, and its
// present state.
type Device struct {
	store.Node
	FQDN  string     `json:"fqdn"`
	IPv6  netip.Addr `json:"ipv6"`
	Title string     `json:"title"` // the name as people write it: of xn--kche-0ra it is küche
	// Online is as of LastSeen. LastSeen is when the server last received something from
	// the device while it is online, else when it was last online; nil when unknown.
	Online   bool       `json:"online"`
	LastSeen *time.Time `json:"last_seen"`
	// Unknown says that the device may be online: the server or a relay has just started
	// and has no report about it yet.
	Unknown bool        `json:"unknown"`
	Relay   string      `json:"relay"`   // name of the relay where it is, "" while not online
	Address string      `json:"address"` // its public address as that relay sees it, "" for unknown
	Aliases []AliasInfo `json:"aliases"` // former names that still lead here
	// KnowsURLs says that the device has received all present addresses of the server, so
	// the server may move to any of them.
	KnowsURLs bool `json:"knows_urls"`
	// SignIn is when it has to be signed in again, nil for never.
	SignIn *DeviceSignIn `json:"sign_in"`
	// Revision changes with every change that somebody makes to the device: see
	// EditDevice.Match.
	Revision string `json:"revision"`
	// Attention is why somebody should see to it: NeedExpired, NeedRenewal, "" for nothing.
	Attention string `json:"attention"`
	// Pending says that it has not fetched what its latest tags and owner made necessary.
	Pending bool `json:"pending"`
}

// Values of Device.Attention.
const (
	NeedExpired = "expired" // its certificate has ended
	NeedRenewal = "overdue" // its certificate should have been renewed a while ago, and has not ended
)

// View adds to a row what is known of the device just now.
func (s *Service) View(n store.Node) Device {
	st := s.stateOf(n.ID, n.Seen)
	d := Device{
		Node: n, FQDN: n.Name + "." + s.suffix, IPv6: store.IPv6Of(s.ipv6, n.IPv4), Title: UnicodeName(n.Name),
		Online: st.Online, LastSeen: orNil(st.Since), Unknown: s.unsure(n.ID),
		Aliases: s.aliasInfos(n.ID), KnowsURLs: s.index.knowsURLs(n.ID), Revision: revisionOf(n), SignIn: s.deviceSignIn(n),
		Attention: s.attention(n), Pending: s.index.behind(n.ID),
	}
	if st.Online {
		d.Relay = s.relayLabel(st.Relay)
	}
	if st.Addr.IsValid() {
		d.Address = st.Addr.Unmap().String()
	}
	return d
}

// attention is Device.Attention of a row read with its certificate, if that ends before
// asksIssued.
func (s *Service) attention(n store.Node) string {
	now := s.now()
	if n.Expires.Before(now) {
		return NeedExpired
	}
	if !n.Expires.Before(s.asksIssued()) {
		return ""
	}
	// It is renewed with a third of its life left. With 7/30, 21 days of 90, that has
	// failed for a while.
	c, err := cert.ParseNode(s.network, n.Certificate)
	if err == nil && n.Expires.Sub(now) < n.Expires.Sub(c.NotBefore)*7/30 {
		return NeedRenewal
	}
	return ""
}

// asksIssued is the end of a certificate before which somebody asks when it was made:
// reading that takes a while.
func (s *Service) asksIssued() time.Time { return s.now().Add(nodeLife / 3) }

// orNil is a time as JSON has it: to the second, nil for the zero time.
func orNil(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC().Truncate(time.Second)
	return &t
}

// countFor counts the devices that an actor may see, those of them that are online,
// and those that do not know all addresses of the server.
func (s *Service) countFor(a Actor) (all, online, unaware int) {
	return s.index.countWhere(func(userID string, tags []string) bool {
		return opDeviceRead.authorize(a, target{kind: "device", owner: userID, tags: tags}) == nil
	}, s.presence.Connected())
}

// lookAt asks the silent ones of a list, and brings those up to date that were said to
// be online.
func (s *Service) lookAt(ctx context.Context, list []Device) {
	var ids []cert.NodeID
	var at []int
	for i, d := range list {
		if d.Online && len(ids) < maxLook {
			ids, at = append(ids, d.ID), append(at, i)
		}
	}
	s.look(ctx, ids)
	for i, id := range ids {
		st := s.stateOf(id, time.Time{})
		list[at[i]].Online, list[at[i]].LastSeen = st.Online, orNil(st.Since)
	}
}

// Device finds a device by its name (short or full), its overlay address or its id.
func (s *Service) Device(ctx context.Context, a Actor, word string) (Device, error) {
	n, err := s.FindDevice(ctx, word)
	if err == nil {
		if err = opDeviceRead.authorize(a, deviceTarget(n)); err != nil {
			err = About(KindDevice, word, err)
		}
	}
	if err != nil {
		return Device{}, err
	}
	s.look(ctx, []cert.NodeID{n.ID})
	return s.View(n), nil
}

// DeviceToChange is Device for changes that cannot be undone. It does not accept a
// former name, which may have been typed for another device.
func (s *Service) DeviceToChange(ctx context.Context, a Actor, word string) (cert.NodeID, error) {
	n, err := s.FindDevice(ctx, word)
	if err != nil {
		return n.ID, err
	}
	if err := opDeviceRead.authorize(a, deviceTarget(n)); err != nil {
		return cert.NodeID{}, About(KindDevice, word, err)
	}
	if label, ok := s.label(word); ok && slices.ContainsFunc(s.aliasInfos(n.ID), func(a AliasInfo) bool { return a.Name == label }) {
		return cert.NodeID{}, About(KindDevice, word, fmt.Errorf("that was the name of %s before; say %[1]s if you mean it: %w", n.Name, ErrNotFound))
	}
	return n.ID, nil
}
