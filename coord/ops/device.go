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

// Device is a device as the console and the API show it: its row in the database, and its
// current state.
type Device struct {
	store.Node
	FQDN  string     `json:"fqdn"`
	IPv6  netip.Addr `json:"ipv6"`
	Title string     `json:"title"` // the name in Unicode: küche for xn--kche-0ra
	// LastSeen is when the server last received something from the device if it is online,
	// else when it was last online; nil if unknown.
	Online   bool       `json:"online"`
	LastSeen *time.Time `json:"last_seen"`
	// Unknown says that the device may be online: the server or a relay has just started
	// and has no report about it yet.
	Unknown bool        `json:"unknown"`
	Relay   string      `json:"relay"`   // name of the relay to which it is connected, "" if not online
	Address string      `json:"address"` // its public address as that relay sees it, "" if unknown
	Aliases []AliasInfo `json:"aliases"` // former names that still lead to this device
	// KnowsURLs says that the device has received all present addresses of the server, so
	// the server may move to any of them.
	KnowsURLs bool `json:"knows_urls"`
	// SignIn is when the owner has to sign the device in again, nil for never.
	SignIn *DeviceSignIn `json:"sign_in"`
	// Revision changes with every change that somebody makes to the device: see
	// EditDevice.Match.
	Revision string `json:"revision"`
	// Attention is why somebody should look at the device: NeedExpired, NeedRenewal, or "".
	Attention string `json:"attention"`
	// Pending says that the device has not yet fetched the certificate for its current tags and
	// owner.
	Pending bool `json:"pending"`
}

// Values of Device.Attention.
const (
	NeedExpired = "expired" // its certificate has ended
	NeedRenewal = "overdue" // its certificate is still valid, but should have been renewed a while ago
)

// View returns the device of a row, with its current state.
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

// attention returns Device.Attention of a row. If the row's certificate ends before asksIssued,
// the row must have been read with its certificate.
func (s *Service) attention(n store.Node) string {
	now := s.now()
	if n.Expires.Before(now) {
		return NeedExpired
	}
	if !n.Expires.Before(s.asksIssued()) {
		return ""
	}
	// Devices renew their certificates when a third of the life is left, which is 30 days of
	// 90. If less than 7/30 is left, 21 days of 90, renewals have failed for some time.
	c, err := cert.ParseNode(s.network, n.Certificate)
	if err == nil && n.Expires.Sub(now) < n.Expires.Sub(c.NotBefore)*7/30 {
		return NeedRenewal
	}
	return ""
}

// asksIssued is the end of life from which on attention need not know when a certificate was
// issued. That takes a while to read, and only certificates that end earlier can be overdue.
func (s *Service) asksIssued() time.Time { return s.now().Add(nodeLife / 3) }

// orNil returns a time for JSON: in UTC, truncated to seconds, nil for the zero time.
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

// lookAt pings the devices of a list that are said to be online but have been silent, and
// updates the list with the results.
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
