package ops

import (
	"cmp"
	"context"
	"time"

	"weft/coord/store"
)

// RelayInfo is one relay in the output of `weft-server relays list --json`.
type RelayInfo struct {
	ID      string     `json:"id"`
	Name    string     `json:"name"`
	URLs    []string   `json:"urls"`
	STUN    []string   `json:"stun"`
	Builtin bool       `json:"builtin"` // the relay is part of the server
	Online  bool       `json:"online"`  // the server heard from it within the last minute
	Clients int        `json:"clients"` // devices that have their home connection here
	Heard   *time.Time `json:"heard"`   // when the server last heard from it; nil for not since the server started
	Version string     `json:"version"`
	Joined  time.Time  `json:"joined"`
	Key     string     `json:"key"`
	Rate    *int64     `json:"bytes_per_second"` // that it forwarded between devices, mean of the last five minutes; nil if unknown
}

// RelayList lists the relays, the server's own first.
func (s *Service) RelayList(a Actor) ([]RelayInfo, error) {
	if err := opRelayRead.asks(a); err != nil {
		return nil, err
	}
	n := s.Network()
	_, verb := s.relay.get().(noRelay) // a CLI verb opened the data directory, and no server runs
	list := []RelayInfo{{
		ID: s.auth.RelayID(), Name: relayName, URLs: n.URLs, STUN: append([]string{}, n.STUN...), Builtin: true,
		Online: !verb, Clients: s.presence.At(s.auth.RelayID()), Version: s.software, Joined: n.Created, Rate: s.rateOf(s.auth.RelayID()),
	}}
	for _, r := range s.Relays() {
		list = append(list, s.ViewRelay(r))
	}
	return list, nil
}

// ViewRelay returns the relay of a row, with its current state.
func (s *Service) ViewRelay(r store.Relay) RelayInfo {
	heard, online := s.RelayHeard(r.ID)
	return RelayInfo{
		ID: r.ID, Name: r.Name, URLs: r.URLs, STUN: append([]string{}, r.STUN...), Online: online, Clients: s.presence.At(r.ID),
		Heard: orNil(heard), Version: r.Software, Joined: r.Created, Key: r.KeyID, Rate: s.rateOf(r.ID),
	}
}

// ShowRevocations is Revocations for an actor who may see the network.
func (s *Service) ShowRevocations(a Actor) (Revocations, error) {
	if err := opNetworkShow.asks(a); err != nil {
		return Revocations{}, err
	}
	return s.Revocations(), nil
}

// ShowDNS is DNS for an actor who may see the DNS settings, without the names of devices that
// the actor may not see.
func (s *Service) ShowDNS(ctx context.Context, a Actor) (DNSInfo, error) {
	if err := opDNSRead.asks(a); err != nil {
		return DNSInfo{}, err
	}
	return s.dnsWith(ctx, a.seesDevice)
}

// Preview is PreviewName for an actor who may see the DNS settings. q.From is a name, an address
// or an id. Devices that the actor may not see are treated as if they did not exist.
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

// LinkURL returns the full URL for a path of CreateLink.
func (s *Service) LinkURL(path string) string { return s.consoleBase() + path }

// InviteURL is LinkURL for a person on another machine: if the server has an address that other
// machines can reach, the URL has that.
func (s *Service) InviteURL(path string) string { return cmp.Or(s.PublicURL(), s.consoleBase()) + path }
