package coord

import (
	"context"
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
	d := s.names.Load().wire // what it points to is not changed
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

// DeviceDNS is how one device answers and asks.
type DeviceDNS struct {
	Wildcard *bool  `json:"wildcard"`  // nil leaves it as it is
	LANNames string `json:"lan_names"` // "default", "on", "off", or "" to leave it as it is
}

// lanNames are the words for Node.LANNames.
var lanNames = map[string]int{"default": 0, "on": 1, "off": -1}

func lanNamesText(v int) string {
	for text, n := range lanNames {
		if n == v {
			return text
		}
	}
	return "default"
}

// SetDeviceDNS changes it. A wildcard is in the config of everybody who sees
// the device, the other switch in its own only.
func (s *Service) SetDeviceDNS(ctx context.Context, id cert.NodeID, d DeviceDNS, allowed func(store.Node) error) (store.Node, error) {
	lan, ok := lanNames[d.LANNames]
	if !ok && d.LANNames != "" {
		return store.Node{}, invalid("lan-names %q: want default, on or off", printable(d.LANNames, 20))
	}
	var node store.Node
	err := s.store.Write(ctx, func(tx *store.Tx) (err error) {
		if node, err = s.nodeFor(tx, id, allowed); err != nil {
			return err
		}
		next := node
		if d.LANNames != "" {
			next.LANNames = lan
		}
		if d.Wildcard != nil {
			next.Wildcard = *d.Wildcard
		}
		if next.Wildcard == node.Wildcard && next.LANNames == node.LANNames {
			return nil
		}
		wild := next.Wildcard != node.Wildcard
		if wild && next.Wildcard {
			list, err := tx.Wildcards(s.network)
			if err != nil {
				return err
			}
			if len(list) >= dns.MaxWildcards {
				return invalid("%d devices answer for names below theirs, at most %d", len(list), dns.MaxWildcards)
			}
		}
		if wild {
			next.ConfigN, err = tx.BumpConfig(s.network)
		} else {
			next.ConfigN, err = tx.Bump(s.network)
		}
		if err != nil {
			return err
		}
		if err := tx.SetNodeDNS(s.network, next); err != nil {
			return err
		}
		node = next
		tx.After(func() {
			if wild {
				name := ""
				if next.Wildcard {
					name = next.Name
				}
				s.index.setWildcard(id, name)
				s.index.setConfigN(next.ConfigN)
			}
			s.index.setNodeConfigN(id, next.ConfigN)
			s.changed()
			s.events.publish(eventRenamed, next)
			s.log.Info("device's names changed", "name", next.Name, "wildcard", next.Wildcard, "lan_names", lanNamesText(next.LANNames))
		})
		return nil
	})
	return node, err
}

// aliasInfos are the former names of a node that have not ended.
func (s *Service) aliasInfos(id cert.NodeID) []AliasInfo {
	list := []AliasInfo{}
	for _, a := range s.index.aliasesOf(id) {
		if s.now().Before(a.Until) {
			list = append(list, AliasInfo{Name: a.Name, Until: a.Until})
		}
	}
	slices.SortFunc(list, func(a, b AliasInfo) int { return b.Until.Compare(a.Until) })
	return list
}
