package console

import "net/http"

// networkFacts says what the network is, and what it was started with.
type networkFacts struct {
	Suffix, ID string
	IPv4, IPv6 string
	Created    stamp
	URLs, STUN []string
	Version    string
}

func (c *Console) settings(v *visit) error {
	if err := only(v.actor, "network.show"); err != nil {
		return err
	}
	n := c.ops.Network()
	view := networkFacts{
		Suffix: clean(n.Suffix), ID: n.ID.String(), IPv4: n.IPv4.String(), IPv6: n.IPv6.String(),
		Created: c.stamp(n.Created), URLs: cleanAll(n.URLs), STUN: cleanAll(n.STUN), Version: clean(c.ops.Software()),
	}
	return c.render(v, http.StatusOK, "settings", view)
}
