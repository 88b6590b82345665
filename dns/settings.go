package dns

import (
	"strings"

	"weft/overlay/api"
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

// Settings are an owner's decisions about names: what a server sends to its nodes, with
// the documentation of its fields. A nil value is the zero one.
type (
	Settings   = api.DNS
	Nameserver = api.Nameserver
	Route      = api.DNSRoute
	Record     = api.DNSRecord
	Alias      = api.DNSAlias
)

// RecordTypes are the types that a Record can have.
var RecordTypes = []string{"A", "AAAA", "CNAME", "TXT", "SRV", "MX", "PTR"}

// Problem is an unused part of the settings, with the reason.
type Problem struct {
	Part string `json:"part"` // "records[3]", "routes[0].nameservers[1]"
	Text string `json:"text"` // one line
}

// Problems checks settings for a network whose zone is suffix. Code that takes settings
// from people refuses them if there are any problems.
func Problems(s *Settings, suffix string) []Problem {
	return compile(s, strings.ToLower(suffix)+".").problems
}
