package ops

import (
	"slices"

	"weft/coord/store"
	"weft/dns"
	"weft/overlay/api"
	"weft/overlay/cert"
)

// dnsOf returns the DNS part of a node's config: the network's settings, with those of this
// node, its aliases, and which of the devices that it sees answer for names below theirs.
func (s *Service) dnsOf(node store.Node) api.DNS {
	d := s.names.Load().DNS // a shallow copy: do not change what its fields point to
	if node.LANNames != 0 {
		d.LANNamesWin = node.LANNames > 0
	}
	d.Wildcards = s.index.visibleWildcards(node.ID, dns.MaxWildcards)
	d.Aliases = []api.DNSAlias{}
	for _, a := range s.index.aliasesOf(node.ID) {
		d.Aliases = append(d.Aliases, api.DNSAlias{Name: a.Name, Target: node.Name, Until: a.Until})
	}
	return d
}

// SetDeviceDNS changes the DNS settings of one device. A wildcard goes into the config
// of every node that sees the device, the other switch only into its own config.
type SetDeviceDNS struct {
	ID cert.NodeID `json:"-"`
	DeviceDNS
}

// DeviceDNS are the DNS settings of one device.
type DeviceDNS struct {
	Wildcard *bool  `json:"wildcard,omitempty"`  // whether its address answers for all names below its own; nil for no change
	LANNames string `json:"lan_names,omitempty"` // whether short names of its LAN come first: "default", "on" or "off"; "" for no change
}

func (SetDeviceDNS) operation() *Operation { return opDeviceDNS }

func (c SetDeviceDNS) run(tx *Tx) (store.Node, error) {
	node, err := tx.device(c.ID)
	if err != nil {
		return node, err
	}
	next := node
	if c.LANNames != "" {
		if err := next.LANNames.UnmarshalText([]byte(c.LANNames)); err != nil {
			return node, Invalid("lan-names %q: want default, on or off", printable(c.LANNames, 20))
		}
	}
	if c.Wildcard != nil {
		next.Wildcard = *c.Wildcard
	}
	if next.Wildcard == node.Wildcard && next.LANNames == node.LANNames {
		return node, nil
	}
	wild := next.Wildcard != node.Wildcard
	if wild && next.Wildcard {
		list, err := tx.Wildcards(tx.s.network)
		if err != nil {
			return node, err
		}
		if len(list) >= dns.MaxWildcards {
			return node, Invalid("%d devices answer for names below theirs, at most %d", len(list), dns.MaxWildcards)
		}
	}
	if wild {
		next.ConfigN, err = tx.BumpConfig(tx.s.network)
	} else {
		next.ConfigN, err = tx.Bump(tx.s.network)
	}
	if err != nil {
		return node, err
	}
	if err := tx.SetNodeDNS(tx.s.network, next); err != nil {
		return node, err
	}
	if wild {
		tx.changed(next.ConfigN, store.ConfigChanged, "")
	}
	tx.changed(next.ConfigN, store.DeviceConfig, next.ID.String())
	tx.did(deviceTarget(next), deviceDNSOf(node), deviceDNSOf(next))
	return next, nil
}

func deviceDNSOf(n store.Node) DeviceDNS {
	return DeviceDNS{Wildcard: &n.Wildcard, LANNames: n.LANNames.String()}
}

// aliasInfos returns the aliases of a node that have not expired, the latest first.
func (s *Service) aliasInfos(id cert.NodeID) []AliasInfo {
	list := []AliasInfo{}
	for _, a := range s.index.aliasesOf(id) {
		if s.now().Before(a.Until) {
			list = append(list, AliasInfo{Alias: a})
		}
	}
	slices.SortFunc(list, func(a, b AliasInfo) int { return b.Until.Compare(a.Until) })
	return list
}
