package api

import "time"

// DNS is what is decided about names in a network, and what the resolver of a node needs
// besides the directory: package dns answers from it (dns.Settings is this type) and says
// what is wrong with it (dns.Problems), the server keeps and changes it, and a node has
// it in its Config. The zero value is a resolver that answers for the overlay and
// forwards all other names to the machine's own resolvers.
//
// Names have the same form everywhere: a name without a dot is one of the overlay
// ("kitchen-pi"), any other is a full name with or without its final dot
// ("www.kitchen-pi.weft.internal", "example.com"), and "@" is the overlay's zone
// itself. Only in Search, RebindingAllowed and a route's Suffix a name without a dot is
// a full name, too ("lan"). Names with letters beyond ASCII are stored and served in
// their ASCII form (RFC 5891).
//
// An invalid part is left out and listed by dns.Problems; the rest works. A value must
// not be changed once it is in use.
type DNS struct {
	// Search are domains to try for short names, beside the overlay's own.
	Search []string `json:"search"`
	// LANNamesWin puts the overlay's zone behind the machine's own search
	// domains, so that "printer" is the LAN's printer where there is one.
	LANNamesWin bool `json:"lan_names_win"`
	// Nameservers answer for all names outside the overlay and the routes; if empty,
	// those names go to the machine's own resolvers.
	Nameservers []Nameserver `json:"nameservers"`
	// Routes send names to resolvers of their own (split DNS).
	Routes []DNSRoute `json:"routes"`
	// Records are answered beside the devices' own names. A device's name
	// wins over a record with the same name.
	Records []DNSRecord `json:"records"`
	// Aliases are former names of devices, answered until they end. Those of other
	// nodes are in Peer.Aliases.
	Aliases []DNSAlias `json:"aliases"`
	// Wildcards are the short names of devices that also answer for every nonexistent
	// name below their own.
	Wildcards []string `json:"wildcards"`
	// TTL of the overlay's own answers in seconds, 1 to 60; 0 is 5.
	TTL int `json:"ttl"`
	// StopRebinding removes overlay, private, loopback and link-local addresses from
	// answers for public names. Routes, home.arpa and the names at and below
	// RebindingAllowed are exempt.
	StopRebinding    bool     `json:"stop_rebinding"`
	RebindingAllowed []string `json:"rebinding_allowed"`
	// KeepBrowsers answers use-application-dns.net with NXDOMAIN, which makes browsers
	// keep their own DNS over HTTPS off.
	KeepBrowsers bool `json:"keep_browsers"`
	// NoStale never answers with expired data when all resolvers fail.
	NoStale bool `json:"no_stale"`
	// PortalURL is an http:// address that answers 204 on an open network and something
	// else behind a captive portal. It is fetched after the network changed and when
	// all Nameservers fail; behind a portal the machine's own resolvers are asked
	// instead of Nameservers. "" switches this off.
	PortalURL string `json:"portal_url"`
	// QueryLog logs one line per question; names are hashed with a key that is new at
	// each start.
	QueryLog bool `json:"query_log"`
}

// Nameserver is a resolver to ask.
type Nameserver struct {
	// Address is one of
	//	192.0.2.53  192.0.2.53:5353  [2001:db8::53]:53   UDP, TCP when needed
	//	tls://dns.example  tls://dns.example:853         DNS over TLS (RFC 7858)
	//	https://dns.example/dns-query                    DNS over HTTPS (RFC 8484)
	// The certificate must be valid for the host in it, name or address. An
	// address inside the overlay is reached through the overlay.
	Address string `json:"address"`
	// Bootstrap are the IP addresses of the host in Address. Without them the machine's
	// own resolvers are asked for its name.
	Bootstrap []string `json:"bootstrap"`
}

// DNSRoute sends a suffix to its own resolvers.
type DNSRoute struct {
	// Suffix matches whole labels: the name itself and all names below it; the longest
	// match wins. Reverse zones work like any other. A route inside the overlay's own
	// zones is not allowed. Names below .local are left to multicast DNS unless there
	// is a route.
	Suffix string `json:"suffix"`
	// Nameservers to ask; if empty, the machine's own resolvers.
	Nameservers []Nameserver `json:"nameservers"`
}

// DNSRecord is one record of a type in dns.RecordTypes.
type DNSRecord struct {
	Name string `json:"name"` // for PTR also an address
	Type string `json:"type"` // A, AAAA, CNAME, TXT, SRV, MX or PTR
	// Value is the data as in a zone file: "192.0.2.1", "10 mail", "0 5 443
	// kitchen-pi". TXT is taken literally.
	Value string `json:"value"`
	TTL   int    `json:"ttl"` // seconds, 1 to 86,400; 0 is 300
}

// DNSAlias is a former name of a device.
type DNSAlias struct {
	Name   string    `json:"name"`   // short
	Target string    `json:"target"` // short: the device's current name
	Until  time.Time `json:"until"`  // the zero time is forever
}
