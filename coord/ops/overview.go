package ops

import (
	"cmp"
	"context"
	"time"

	"weft/coord/store"
)

// Reads about the whole network, for actors that may see it.

// RelayInfo is one relay in `relays list --json`. The first one is part of the
// server.
type RelayInfo struct {
	ID      string     `json:"id"`
	Name    string     `json:"name"`
	URLs    []string   `json:"urls"`
	STUN    []string   `json:"stun"`
	Builtin bool       `json:"builtin"`
	Online  bool       `json:"online"`  // heard of within a minute
	Clients int        `json:"clients"` // whose home it is
	Heard   *time.Time `json:"heard"`   // since the server started
	Version string     `json:"version"`
	Joined  time.Time  `json:"joined"`
	Key     string     `json:"key"`
	Rate    *int64     `json:"bytes_per_second"` // sent on between devices, mean of the last five minutes; nil: it does not say
}

// RelayList lists the relays, the server's own first.
func (s *Service) RelayList(a Actor) ([]RelayInfo, error) {
	if err := opRelayRead.asks(a); err != nil {
		return nil, err
	}
	n := s.Network()
	_, verb := s.relay.get().(noRelay) // no server runs
	list := []RelayInfo{{
		ID: s.auth.RelayID(), Name: relayName, URLs: n.URLs, STUN: append([]string{}, n.STUN...), Builtin: true,
		Online: !verb, Clients: s.presence.At(s.auth.RelayID()), Version: s.software, Joined: n.Created, Rate: s.rateOf(s.auth.RelayID()),
	}}
	for _, r := range s.Relays() {
		list = append(list, s.ViewRelay(r))
	}
	return list, nil
}

// ViewRelay adds the present state of the relay to its row.
func (s *Service) ViewRelay(r store.Relay) RelayInfo {
	heard, online := s.RelayHeard(r.ID)
	return RelayInfo{
		ID: r.ID, Name: r.Name, URLs: r.URLs, STUN: append([]string{}, r.STUN...), Online: online, Clients: s.presence.At(r.ID),
		Heard: orNil(heard), Version: r.Software, Joined: r.Created, Key: r.KeyID, Rate: s.rateOf(r.ID),
	}
}

// ShowRevocations is Revocations for an actor, if he may see the network.
func (s *Service) ShowRevocations(a Actor) (Revocations, error) {
	if err := opNetworkShow.asks(a); err != nil {
		return Revocations{}, err
	}
	return s.Revocations(), nil
}

// ShowDNS is DNS for an actor, if he may see the DNS settings, without the names of
// devices that he may not see.
func (s *Service) ShowDNS(ctx context.Context, a Actor) (DNSInfo, error) {
	if err := opDNSRead.asks(a); err != nil {
		return DNSInfo{}, err
	}
	return s.dnsWith(ctx, a.seesDevice)
}

// Preview is PreviewName for an actor, if he may see the DNS settings. The asking
// device is given by name, address or id. Devices that the actor may not see have no names.
func (s *Service) Preview(ctx context.Context, a Actor, q PreviewQuery) (Preview, error) {
	if err := opDNSRead.asks(a); err != nil {
		return Preview{}, err
	}
	if q.From != "" {
		d, err := s.Device(ctx, a, q.From)
		if err != nil {
			return Preview{}, err
		}
		q.From = d.ID.String()
	}
	return s.previewName(ctx, q, a.seesDevice)
}

// seesDevice reports whether an actor may see a device.
func (a Actor) seesDevice(n store.Node) bool {
	return opDeviceRead.authorize(a, deviceTarget(n)) == nil
}

// LinkURL is where a browser opens the path of CreateLink.
func (s *Service) LinkURL(path string) string { return s.consoleBase() + path }

// InviteURL is LinkURL for somebody who is elsewhere, as far as others reach the server.
func (s *Service) InviteURL(path string) string { return cmp.Or(s.PublicURL(), s.consoleBase()) + path }
