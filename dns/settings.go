package dns

import (
	"strings"
	"time"
)

// Bounds on the settings that a server can send to a node; anything beyond them is left
// out.
const (
	MaxRecords     = 1000
	MaxRoutes      = 256
	MaxNameservers = 8 // per route, and for all other names
	MaxAliases     = 1000
	MaxWildcards   = 1000
	MaxSearch      = 16
)

// The default and maximum TTL of our own data, in seconds. It is low so that a rename
// takes effect soon.
const (
	defaultTTL = 5
	maxTTL     = 60
)

// Settings are an owner's decisions about names, with the same fields as api.DNS. The
// zero value is a resolver that answers for the overlay and forwards all other names to
// the machine's own resolvers.
//
// Names have the same form everywhere: a name without a dot is one of the overlay
// ("kitchen-pi"), any other is a full name with or without its final dot
// ("www.kitchen-pi.weft.internal", "example.com"), and "@" is the overlay's zone
// itself. Only in Search, RebindingAllowed and a route's Suffix a name without a dot is
// a full name, too ("lan"). Names with letters beyond ASCII are stored and served in
// their ASCII form (RFC 5891).
//
// An invalid part is left out and listed by Problems; the rest works. Settings must not
// be changed once they are in use.
type Settings struct {
	// Search are domains to try for short names, beside the overlay's own.
	Search []string `json:"search"`
	// LANNamesWin puts the overlay's zone behind the machine's own search
	// domains, so that "printer" is the LAN's printer where there is one.
	LANNamesWin bool `json:"lan_names_win"`
	// Nameservers answer for all names outside the overlay and the routes; if empty,
	// those names go to the machine's own resolvers.
	Nameservers []Nameserver `json:"nameservers"`
	// Routes send names to resolvers of their own (split DNS).
	Routes []Route `json:"routes"`
	// Records are answered beside the devices' own names. A device's name
	// wins over a record with the same name.
	Records []Record `json:"records"`
	// Aliases are former names of devices, answered until they end.
	Aliases []Alias `json:"aliases"`
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

// Route sends a suffix to its own resolvers.
type Route struct {
	// Suffix matches whole labels: the name itself and all names below it; the longest
	// match wins. Reverse zones work like any other. A route inside the overlay's own
	// zones is not allowed. Names below .local are left to multicast DNS unless there
	// is a route.
	Suffix string `json:"suffix"`
	// Nameservers to ask; if empty, the machine's own resolvers.
	Nameservers []Nameserver `json:"nameservers"`
}

// Record is one record of a type in RecordTypes.
type Record struct {
	Name string `json:"name"` // for PTR also an address
	Type string `json:"type"`
	// Value is the data as in a zone file: "192.0.2.1", "10 mail", "0 5 443
	// kitchen-pi". TXT is taken literally.
	Value string `json:"value"`
	TTL   int    `json:"ttl"` // seconds, 1 to 86,400; 0 is 300
}

// RecordTypes are the types that a Record can have.
var RecordTypes = []string{"A", "AAAA", "CNAME", "TXT", "SRV", "MX", "PTR"}

// Alias is a former name of a device.
type Alias struct {
	Name   string    `json:"name"`   // short
	Target string    `json:"target"` // short: the device's current name
	Until  time.Time `json:"until"`  // the zero time is forever
}

// Problem is an unused part of the settings, with the reason.
type Problem struct {
	Part string `json:"part"` // "records[3]", "routes[0].nameservers[1]"
	Text string `json:"text"` // one line
}

// Problems checks settings for a network whose zone is suffix. Code that takes settings
// from people refuses them if there are any problems.
func (s *Settings) Problems(suffix string) []Problem {
	return compile(s, strings.ToLower(suffix)+".").problems
}
