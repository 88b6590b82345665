package localapi

import (
	"context"
	"net/http"
)

// OSDNS is what the daemon found and set in the operating system's DNS, and why: GET
// /v1/dns/os. Only a daemon with a network interface sets anything.
type OSDNS struct {
	Schema     string   `json:"schema"` // "os-dns/1"
	Mode       string   `json:"mode"`   // "off", "systemd-resolved", "resolvconf", "openresolv", "NetworkManager", "direct"
	Reason     string   `json:"reason"` // why this mode
	Interface  string   `json:"interface"`
	Nameserver string   `json:"nameserver"` // our resolver, "" if there is nothing to set
	Search     []string `json:"search"`
	Match      []string `json:"match"`   // names below these go to our resolver
	Default    bool     `json:"default"` // all other names, too
	Applied    []string `json:"applied"` // what was set, for people
	Base       []string `json:"base"`    // the machine's own resolvers, IP:port
	Tramples   int      `json:"tramples"`
	Error      string   `json:"error"` // why it does not work, "" if it does
}

func (s *Server) osDNS(w http.ResponseWriter, _ *http.Request) {
	st := OSDNS{Mode: "off", Reason: "this daemon has no network interface (weft run --tun), so it does not set the system's DNS"}
	if s.os != nil {
		st = s.os()
	}
	st.Schema = "os-dns/1"
	for _, l := range []*[]string{&st.Search, &st.Match, &st.Applied, &st.Base} {
		if *l == nil {
			*l = []string{}
		}
	}
	reply(w, st)
}

// OSDNS returns the state of the system's DNS settings.
func (c *Client) OSDNS(ctx context.Context) (OSDNS, error) {
	var s OSDNS
	return s, c.call(ctx, http.MethodGet, "/v1/dns/os", nil, nil, &s)
}
