package ops

import (
	"context"
	"net/http"
	"net/netip"
	"strings"

	"weft/coord/store"
	"weft/dns"
	"weft/overlay/api"
	"weft/overlay/cert"
)

// handleLookup answers with one node, by name (short or full), address or id. If the policy does
// not let the caller reach the node, the answer is as if there were no such node. The caller can
// always look up itself.
func (s *Service) handleLookup(ctx context.Context, c *caller, r *http.Request) (any, error) {
	q := r.URL.Query()
	find, err := s.finder(q.Get("name"), q.Get("ip"), q.Get("id"))
	if err != nil {
		return nil, err
	}
	var node store.Node
	if err := s.store.Read(ctx, func(rd *store.Reader) (err error) { node, err = find(rd); return err }); err != nil {
		return nil, err
	}
	if node.ID != c.id && !s.index.reaches(c.id, node.Class) {
		return nil, store.ErrNotFound
	}
	p := s.peerOf(&node)
	return &p, nil
}

// finder returns a function that reads a node by exactly one of name, address and id; the other
// two must be "".
func (s *Service) finder(name, ip, id string) (func(*store.Reader) (store.Node, error), error) {
	none := func(*store.Reader) (store.Node, error) { return store.Node{}, store.ErrNotFound }
	switch {
	case name != "" && ip == "" && id == "":
		label, ok := s.label(name)
		if !ok {
			return none, nil
		}
		return func(rd *store.Reader) (store.Node, error) {
			node, err := rd.NodeByName(s.network, label)
			if isNotFound(err) {
				return rd.NodeByAlias(s.network, label, s.now())
			}
			return node, err
		}, nil
	case ip != "" && name == "" && id == "":
		a, err := netip.ParseAddr(ip)
		if err != nil {
			return nil, fail(http.StatusBadRequest, api.CodeBadRequest, "ip: not an address", "")
		}
		a = a.Unmap()
		if a.Is6() {
			v4, ok := store.IPv4Of(s.ipv6, a.WithZone(""))
			if !ok {
				return none, nil
			}
			a = v4
		}
		return func(rd *store.Reader) (store.Node, error) { return rd.NodeByIPv4(s.network, a) }, nil
	case id != "" && name == "" && ip == "":
		nodeID, err := cert.ParseNodeID(id)
		if err != nil {
			return nil, fail(http.StatusBadRequest, api.CodeBadRequest, "id: not a node id", "")
		}
		return func(rd *store.Reader) (store.Node, error) { return rd.Node(s.network, nodeID) }, nil
	}
	return nil, fail(http.StatusBadRequest, api.CodeBadRequest, "want exactly one of name, ip and id", "")
}

// label returns the label of a short or full device name, in lower case. It returns false if the
// name cannot be one of a device.
func (s *Service) label(name string) (string, bool) {
	if len(name) > 253 {
		return "", false
	}
	if ascii, err := dns.ASCIIName(name); err == nil {
		name = ascii // "küche" is stored as xn--kche-0ra
	}
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	name = strings.TrimSuffix(name, "."+s.suffix)
	return name, name != "" && !strings.Contains(name, ".")
}
