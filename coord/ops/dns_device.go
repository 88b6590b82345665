package ops

import (
	"slices"

	"weft/coord/store"
	"weft/dns"
	"weft/overlay/api"
	"weft/overlay/cert"
)

// dnsOf is what one node's resolver needs: what the owner decided, whether this
// node's LAN wins, its own former names, and which of the devices that it sees
// answer for names below theirs.
func (s *Service) dnsOf(node store.Node) api.DNS {
	d := s.names.Load().DNS // what it points to is not changed
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
	Wildcard *bool  `json:"wildcard,omitempty"`  // whether it answers for every name below its own; nil leaves it as it is
	LANNames string `json:"lan_names,omitempty"` // whether short names of its LAN come first: "default", "on", "off", or "" to leave it as it is
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

// aliasInfos are the former names of a node that have not ended.
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
