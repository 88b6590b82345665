package dns

import (
	"slices"
	"strings"
)

// reserved are labels that programs look up by themselves, without anybody having
// told them to, in every domain of the search list, and whose owner they trust. A
// device picks its name itself: it must not become one of these by that.
var reserved = []string{
	"wpad",   // the web proxy of all browsers
	"isatap", // the router of IPv6 over IPv4, for Windows; both are blocked by its DNS server, too

	"autoconfig", "autodiscover", // the settings of mail programs, and passwords with them
	"mta-sts", "openpgpkey", // which mail servers and keys are right

	"puppet", "salt", // who may run everything on the machines of the network, unless configured
	"loghost",                                  // who is sent the log of BSD and Solaris
	"data-server", "instance-data", "metadata", // who configures a machine in a cloud

	// This machine, or none, whatever /etc/hosts says.
	"broadcasthost", "ip6-allhosts", "ip6-allnodes", "ip6-allrouters", "ip6-localhost", "ip6-localnet", "ip6-loopback", "ip6-mcastprefix",
	"local", "localdomain", "localdomain4", "localdomain6", "localhost", "localhost4", "localhost6", "loopback",
}

// Reserved reports whether a label means something to programs that would trust
// whoever has it. It is no name for a device, and not answered for one. A record
// of the settings may have it: that an owner has made on purpose.
func Reserved(label string) bool { return slices.Contains(reserved, strings.ToLower(label)) }
