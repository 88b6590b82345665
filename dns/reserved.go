package dns

import (
	"slices"
	"strings"
)

// reserved are labels that programs look up in every domain of the search list without
// being configured to, and whose owner they trust. A device picks its own name, and
// must not gain that trust by picking one of these.
var reserved = []string{
	"wpad",   // the web proxy of all browsers
	"isatap", // Windows' router for IPv6 over IPv4; Windows' DNS server blocks both, too

	"autoconfig", "autodiscover", // settings of mail programs, which then send passwords
	"mta-sts", "openpgpkey", // valid mail servers and keys

	"puppet", "salt", // default name of the host that may run anything on the others
	"loghost",                                  // where BSD and Solaris send their logs
	"data-server", "instance-data", "metadata", // configures a machine in a cloud

	// This machine, or no machine, whatever /etc/hosts says.
	"broadcasthost", "ip6-allhosts", "ip6-allnodes", "ip6-allrouters", "ip6-localhost", "ip6-localnet", "ip6-loopback", "ip6-mcastprefix",
	"local", "localdomain", "localdomain4", "localdomain6", "localhost", "localhost4", "localhost6", "loopback",
}

// Reserved reports whether programs would trust any host with this label. A device
// cannot have it, and no device is answered under it. A record in the settings may have
// it: an owner made that on purpose.
func Reserved(label string) bool { return slices.Contains(reserved, strings.ToLower(label)) }
