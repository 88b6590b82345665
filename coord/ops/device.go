package ops

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
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
	// Issued is when its certificate was signed; nil while the certificate is far from its end.
	Issued *time.Time `json:"-"`
}

// View adds to a row what is known of the device just now.
func (s *Service) View(n store.Node) Device {
	st := s.stateOf(n.ID, n.Seen)
	d := Device{
		Node: n, FQDN: n.Name + "." + s.suffix, IPv6: store.IPv6Of(s.ipv6, n.IPv4), Title: UnicodeName(n.Name),
		Online: st.Online, LastSeen: orNil(st.Since), Unknown: s.unsure(n.ID),
		Aliases: s.aliasInfos(n.ID), KnowsURLs: s.index.knowsURLs(n.ID), Revision: revisionOf(n), SignIn: s.deviceSignIn(n),
	}
	if st.Online {
		d.Relay = s.relayLabel(st.Relay)
	}
	if st.Addr.IsValid() {
		d.Address = st.Addr.Unmap().String()
	}
	if n.Expires.Before(s.asksIssued()) {
		if c, err := cert.ParseNode(s.network, n.Certificate); err == nil {
			d.Issued = &c.NotBefore
		}
	}
	return d
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

// DeviceQuery selects devices. The zero value selects all.
type DeviceQuery struct {
	Text   string // every space-separated word is part of the name, an address, a tag or the OS; no case; at most 100 bytes
	State  string // "", "online" or "offline"
	KeyID  string // joined with this key
	After  string // name after which the page begins: the cursor
	Offset int    // or how many to pass over
	Limit  int    // 0: all
}

// DeviceList is one page.
type DeviceList struct {
	Devices []Device `json:"devices"`
	Next    string   `json:"next"`    // DeviceQuery.After of the next page, "" at the end
	Total   int      `json:"total"`   // that the query selects, whatever the page
	Online  int      `json:"online"`  // online among all that the actor may see
	All     int      `json:"all"`     // that the actor may see
	Unaware int      `json:"unaware"` // of those: that do not know all addresses of the server
}

// Devices lists the devices that the actor may see, by name.
func (s *Service) Devices(ctx context.Context, a Actor, q DeviceQuery) (DeviceList, error) {
	var list DeviceList
	if err := opDeviceRead.asks(a); err != nil {
		return list, err
	}
	if len(q.Text) > 100 {
		return list, Invalid("search for at most 100 bytes")
	}
	words := strings.Fields(strings.ToLower(q.Text))
	page := store.NodePage{UserID: opDeviceRead.ownerSeen(a), Ending: s.asksIssued()}
	list.All, list.Online, list.Unaware = s.countFor(a)
	every := len(words) == 0 && q.State == "" && q.KeyID == ""
	err := s.store.Read(ctx, func(r *store.Reader) error {
		if every && len(a.Tags) == 0 && q.Limit > 0 { // the database finds the page
			list.Devices = make([]Device, 0, min(q.Limit, list.All))
			page.After, page.Offset, page.Limit = q.After, q.Offset, q.Limit+1
			return r.EachListed(s.network, page, func(n store.Node) error {
				if len(list.Devices) == q.Limit {
					list.Next = list.Devices[q.Limit-1].Name
					return nil
				}
				list.Devices = append(list.Devices, s.View(n))
				return nil
			})
		}
		return r.EachListed(s.network, page, func(n store.Node) error {
			if opDeviceRead.authorize(a, deviceTarget(n)) != nil {
				return nil
			}
			if q.KeyID != "" && q.KeyID != n.KeyID || !s.matches(n, q.State, words) {
				return nil
			}
			list.Total++
			if list.Total <= q.Offset || n.Name <= q.After {
				return nil
			}
			if q.Limit > 0 && len(list.Devices) == q.Limit {
				list.Next = list.Devices[q.Limit-1].Name
				return nil
			}
			list.Devices = append(list.Devices, s.View(n))
			return nil
		})
	})
	if err != nil {
		return list, err
	}
	if every {
		list.Total = list.All
	}
	s.lookAt(ctx, list.Devices)
	return list, nil
}

// matches reports whether a device is selected.
func (s *Service) matches(n store.Node, state string, words []string) bool {
	if state != "" {
		online := s.stateOf(n.ID, n.Seen).Online
		if online != (state == "online") || !online && s.unsure(n.ID) {
			return false
		}
	}
	if len(words) == 0 {
		return true
	}
	text := strings.ToLower(strings.Join(append([]string{n.Name + "." + s.suffix, n.IPv4.String(), store.IPv6Of(s.ipv6, n.IPv4).String(), n.OS}, n.Tags...), "\n"))
	return !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(text, w) })
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
