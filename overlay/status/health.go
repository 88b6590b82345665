package status

import "strings"

// Health is one thing that needs attention.
type Health struct {
	Code    Code   `json:"code"`    // stable, for programs
	Message string `json:"message"` // for people, with the next step
	// Of is which of several things it is said of, a port or a device; "": of one that
	// there is once, or a daemon of an earlier version does not say.
	Of string `json:"of,omitempty"`
}

// Cure returns the command or act that mends it, "" when that is unknown or said in
// the message.
func (h Health) Cure() string {
	cure, of := h.Code.Meaning().Cure, h.Of
	if of == "" {
		_, of = h.Code.Cut()
	}
	if of == "" {
		return cure
	}
	return strings.ReplaceAll(cure, "PORT", of)
}

// Code says in a word what needs attention. The words are stable: programs go by
// them. A daemon of another version may say others.
type Code string

// The codes, by who finds out. Each has a row in the table below; a new one is named
// here, and set where it is noticed.
const (
	// The node, of the network that it is in.
	CodeServerOffline     Code = "server-offline"      // the coordination server does not answer
	CodeServerUntrusted   Code = "server-untrusted"    // something else answers in its place
	CodeRelayOffline      Code = "relay-offline"       // no connection to the relay
	CodeVersion           Code = "version"             // too far from the server in version
	CodeRevoked           Code = "revoked"             // this device was removed from the network
	CodeCloned            Code = "cloned"              // another machine uses this device's identity
	CodeIdentityChanged   Code = "identity-changed"    // a name is another device's than at first contact
	CodeReleaseKeyChanged Code = "release-key-changed" // the server names another release key than at the join
	CodeRevocationList    Code = "revocation-list"     // not known to be current, though the server answers
	CodeRenewal           Code = "renewal"             // the certificate, the same
	CodeConfig            Code = "config"              // the configuration, the same
	CodeDirectory         Code = "directory"           // the list of devices, the same
	CodeCertificate       Code = "certificate"         // it ends soon, or has ended, and was not renewed
	CodeRoutes            Code = "routes"              // routes to the network cannot be set
	CodeStateDirectory    Code = "state-directory"     // what the node learns is not written down

	// The node, of itself and its machine.
	CodeJoinWaiting  Code = "join-waiting"   // the first join has not succeeded yet
	CodeClock        Code = "clock"          // this machine's is off
	CodeUDPPortTaken Code = "udp-port-taken" // no UDP socket: everything goes through relays

	// The kernel interface (package tun).
	CodeTun              Code = "tun"                // it cannot be configured
	CodeTunDown          Code = "tun-down"           // somebody has set it down
	CodeTunUnguarded     Code = "tun-unguarded"      // the overlay addresses can be reached from the LAN
	CodeTunGuardRemoved  Code = "tun-guard-removed"  // another program removed what prevents that; it was set again
	CodeTunNoIPv6        Code = "tun-no-ipv6"        // it has no IPv6 address
	CodeIPv4Blocked      Code = "ipv4-blocked"       // a firewall drops what peers send over IPv4
	CodeRouteOverlap     Code = "route-overlap"      // of 4 or 6: a range of the overlay is routed elsewhere
	CodeInboundPortTaken Code = "inbound-port-taken" // of a port: another program has it

	// The program around it (cmd/weft).
	CodeInboundLoopback6 Code = "inbound-loopback6" // of a port: its program listens on ::1 only
	CodeProxyPortTaken   Code = "proxy-port-taken"  // the default port of the proxy
	CodeDNSPortTaken     Code = "dns-port-taken"    // the default port of the resolver
	CodeOSDNS            Code = "os-dns"            // this machine's DNS cannot be set
	CodeOSDNSConfig      Code = "os-dns-config"     // the names in the configuration cannot be
	CodeConnections      Code = "connections"       // too many: netstack says it, and the proxy of itself
	CodeMemory           Code = "memory"            // too little for another connection: netstack says it

	// The resolver (package dns), which names them itself.
	CodeDNSSettings Code = "dns-settings" // parts of the owner's settings are not used
	CodeDNSPortal   Code = "dns-portal"   // the network wants somebody to sign in first
	CodeDNSLoop     Code = "dns-loop"     // a resolver asks this one what it is asked
	CodeDNSUpstream Code = "dns-upstream" // a resolver does not answer
)

// Meaning is what follows from a code, beyond its message. The zero Meaning is that
// of a code which a later version may say.
type Meaning struct {
	// OfNetwork says that it tells of the network that the node is in, and ends when
	// the node leaves it.
	OfNetwork bool
	// Broken says that something does not work, rather than not well or not for long.
	Broken bool
	// Explained says that what doctor looks at itself explains it better.
	Explained bool
	// Cure is the command or act that mends it; "": what the message says. PORT stands
	// for what the code is of: who shows it calls Health.Cure.
	Cure string
}

const tellOwner = "tell the owner of the server: what it sends is said above"

var meanings = map[Code]Meaning{
	CodeServerOffline:     {OfNetwork: true, Explained: true},
	CodeServerUntrusted:   {OfNetwork: true, Explained: true},
	CodeRelayOffline:      {OfNetwork: true, Explained: true},
	CodeVersion:           {OfNetwork: true, Broken: true, Cure: "run the line again with which the console installs a device: it upgrades weft; compare weft version and weft-server version"},
	CodeRevoked:           {OfNetwork: true, Broken: true, Cure: "weft logout, then: weft up TOKEN"},
	CodeCloned:            {OfNetwork: true, Cure: "on one of the two machines: weft logout, then weft up TOKEN"},
	CodeIdentityChanged:   {OfNetwork: true, Cure: "ask the owner of the server whether the device was replaced"},
	CodeReleaseKeyChanged: {OfNetwork: true, Cure: "ask the owner of the network; install nothing until then"},
	CodeRevocationList:    {OfNetwork: true, Cure: tellOwner},
	CodeRenewal:           {OfNetwork: true, Cure: tellOwner},
	CodeConfig:            {OfNetwork: true, Cure: tellOwner},
	CodeDirectory:         {OfNetwork: true, Cure: tellOwner},
	CodeCertificate:       {OfNetwork: true, Explained: true},
	CodeRoutes:            {OfNetwork: true, Cure: "ip route; remove what overlaps with the overlay's addresses"},
	CodeStateDirectory:    {OfNetwork: true, Cure: "df and ls -ld on the state directory; make room or give it to weft's user"},

	CodeJoinWaiting:  {Broken: true, Cure: "weft up TOKEN, with a new token if this one has ended"},
	CodeClock:        {Cure: "timedatectl set-ntp true"},
	CodeUDPPortTaken: {},

	CodeTun:              {},
	CodeTunDown:          {},
	CodeTunUnguarded:     {},
	CodeTunGuardRemoved:  {Cure: "nothing; to keep it from happening, do not flush all rules of nftables (list only your own tables in /etc/nftables.conf)"},
	CodeTunNoIPv6:        {},
	CodeIPv4Blocked:      {Cure: "the command at the end of the warning; the other program may take it away when it starts again"},
	CodeRouteOverlap:     {},
	CodeInboundPortTaken: {Cure: "stop what listens on port PORT, see: ss -lntup"},

	CodeInboundLoopback6: {Cure: "have the program listen on 127.0.0.1, or: weft run --inbound all,PORT=[::1]:PORT"},
	CodeProxyPortTaken:   {Cure: "choose another, such as: weft run --proxy 127.0.0.1:1065"},
	CodeDNSPortTaken:     {Cure: "choose another, such as: weft run --dns 127.0.0.1:5345"},
	CodeOSDNS:            {},
	CodeOSDNSConfig:      {},
	CodeConnections:      {},
	CodeMemory:           {},

	CodeDNSSettings: {},
	CodeDNSPortal:   {},
	CodeDNSLoop:     {},
	CodeDNSUpstream: {},
}

// Of is the code for one of several things that it may be said of at a time: a port,
// a device. List tells it apart again, as Health.Of.
func (c Code) Of(what string) Code { return c + ":" + Code(what) }

// Cut returns the code as it is in the table, and what it is of, if anything.
func (c Code) Cut() (code Code, of string) {
	word, of, _ := strings.Cut(string(c), ":")
	return Code(word), of
}

// Meaning returns what follows from the code.
func (c Code) Meaning() Meaning {
	code, _ := c.Cut()
	return meanings[code]
}
