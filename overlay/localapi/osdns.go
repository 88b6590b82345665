package localapi

import (
	"context"
	"net/http"
)

// OSDNS is what the daemon found, set and why about the operating system's
// DNS: GET /v1/dns/os. Only a daemon with a network interface of its own sets
// anything.
type OSDNS struct {
	Schema     string   `json:"schema"` // "os-dns/1"
	Mode       string   `json:"mode"`   // "off", "systemd-resolved", "resolvconf", "openresolv", "NetworkManager", "direct"
	Reason     string   `json:"reason"` // why this mode
	Interface  string   `json:"interface"`
	Nameserver string   `json:"nameserver"` // our resolver, "" when nothing is to be set
	Search     []string `json:"search"`
	Match      []string `json:"match"`   // names below these come to us
	Default    bool     `json:"default"` // and all others
	Applied    []string `json:"applied"` // what was set, in words
	Base       []string `json:"base"`    // the machine's resolvers without us, IP:port
	Tramples   int      `json:"tramples"`
	Error      string   `json:"error"` // why it does not work, "" when it does
}

func (s *Server) osDNS(w http.ResponseWriter, _ *http.Request) {
	st := OSDNS{Mode: "off", Reason: "this daemon has no network interface (weft run --tun), and sets nothing without one"}
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

// OSDNS returns what the daemon has done about the system's DNS.
func (c *Client) OSDNS(ctx context.Context) (OSDNS, error) {
	var s OSDNS
	return s, c.call(ctx, http.MethodGet, "/v1/dns/os", nil, nil, &s)
}
