package consoletest

import (
	"context"

	"weft/coord/ops"
	"weft/overlay/api"
	"weft/overlay/api/client"
	"weft/overlay/cert"
)

// Relay is a relay that runs alone.
type Relay struct {
	ID string

	n      *Network
	client *client.Client
	name   string
}

// AddRelay makes a relay join, as "weft-server relay" does. It has not been heard of since.
func (n *Network) AddRelay(name string) *Relay {
	n.t.Helper()
	tok, err := cert.ParseToken(do(n, ops.CreateKey{Relay: true}).Token)
	if err != nil {
		n.t.Fatal(err)
	}
	c, _, csr, err := n.newcomer("192.0.2.7:1234")
	if err == nil {
		_, err = c.JoinRelay(context.Background(), api.RelayJoinRequest{Protocol: api.Protocol, Secret: tok.Secret, CSR: csr, Name: name, URLs: []string{"https://" + name + ".example:8443"}, STUN: []string{}, Software: "0.0.9"})
	}
	if err != nil {
		n.t.Fatal(err)
	}
	for _, r := range n.Relays() {
		if r.Name == name {
			return &Relay{r.ID, n, c, name}
		}
	}
	n.t.Fatal("the relay did not join")
	return nil
}

// Sync has the relay ask for news, which there are the first time, and say what it has sent
// on since it started.
func (r *Relay) Sync(relayed uint64) {
	r.n.t.Helper()
	req := api.RelaySync{Protocol: api.Protocol, URLs: []string{"https://" + r.name + ".example:8443"}, STUN: []string{}, Software: "0.0.9", Relayed: &relayed}
	if _, err := r.client.SyncRelay(context.Background(), req); err != nil {
		r.n.t.Fatal(err)
	}
}
