package status

import "strings"

// Health is one problem that needs attention.
type Health struct {
	Code    Code   `json:"code"`    // stable, for programs
	Message string `json:"message"` // for people, with the next step
	// Of is the port or device that the problem is about; "" if it is about the node as
	// a whole, or from a daemon of an earlier version.
	Of string `json:"of,omitempty"`
}

// Cure returns the command or action that fixes the problem, "" if there is none or the
// message contains it.
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

// Code is a stable word for a problem: programs rely on it. A daemon of another version
// may use other codes.
type Code string

// The codes, by the part that detects them. Each has a row in the table below; declare
// a new one here, and set it where the problem is noticed.
const (
	// The node, about its network.
	CodeServerOffline     Code = "server-offline"      // the coordination server does not answer
	CodeServerUntrusted   Code = "server-untrusted"    // something else answers at its address
	CodeRelayOffline      Code = "relay-offline"       // no connection to the relay
	CodeVersion           Code = "version"             // version too different from the server's
	CodeRevoked           Code = "revoked"             // this device was removed from the network
	CodeCloned            Code = "cloned"              // another machine uses this device's identity
	CodeIdentityChanged   Code = "identity-changed"    // a name belongs to another device than at first contact
	CodeReleaseKeyChanged Code = "release-key-changed" // the server names another release key than at the join
	CodeRevocationList    Code = "revocation-list"     // perhaps not current, although the server answers
	CodeRenewal           Code = "renewal"             // the same of the certificate
	CodeConfig            Code = "config"              // the same of the configuration
	CodeDirectory         Code = "directory"           // the same of the list of devices
	CodeCertificate       Code = "certificate"         // it ends soon, or has ended, and was not renewed
	CodeSignIn            Code = "sign-in"             // its person has to sign this device in again soon
	CodeSignInOverdue     Code = "sign-in-overdue"     // that was not done: this device reaches nothing
	CodeRoutes            Code = "routes"              // routes to the network cannot be set
	CodeStateDirectory    Code = "state-directory"     // the state cannot be written to disk

	// The node, about itself and its machine.
	CodeJoinWaiting  Code = "join-waiting"   // the first join has not succeeded yet
	CodeClock        Code = "clock"          // this machine's clock is wrong
	CodeFIPS         Code = "fips"           // FIPS mode is on, and does not include packets
	CodeUDPPortTaken Code = "udp-port-taken" // no UDP socket: everything goes through relays

	// The kernel interface (package tun).
	CodeTun              Code = "tun"                // it cannot be configured
	CodeTunDown          Code = "tun-down"           // it was set down
	CodeTunUnguarded     Code = "tun-unguarded"      // the overlay addresses can be reached from the LAN
	CodeTunGuardRemoved  Code = "tun-guard-removed"  // another program removed the rules against that; they were set again
	CodeTunNoIPv6        Code = "tun-no-ipv6"        // it has no IPv6 address
	CodeIPv4Blocked      Code = "ipv4-blocked"       // a firewall drops what peers send over IPv4
	CodeRouteOverlap     Code = "route-overlap"      // of 4 or 6: a range of the overlay has another route
	CodeInboundPortTaken Code = "inbound-port-taken" // of a port: another program has it

	// The program around it (cmd/weft).
	CodeInboundLoopback6 Code = "inbound-loopback6" // of a port: its program listens on ::1 only
	CodeProxyPortTaken   Code = "proxy-port-taken"  // the default port of the proxy
	CodeDNSPortTaken     Code = "dns-port-taken"    // the default port of the resolver
	CodeOSDNS            Code = "os-dns"            // this machine's DNS cannot be set
	CodeOSDNSConfig      Code = "os-dns-config"     // the names of the configuration cannot be set there
	CodeConnections      Code = "connections"       // too many; from netstack and from the proxy
	CodeMemory           Code = "memory"            // too little for another connection; from netstack

	// The resolver (package dns), which declares them itself.
	CodeDNSSettings Code = "dns-settings" // parts of the owner's settings are not used
	CodeDNSPortal   Code = "dns-portal"   // the network requires a sign-in first
	CodeDNSLoop     Code = "dns-loop"     // a resolver forwards our questions back to us
	CodeDNSUpstream Code = "dns-upstream" // a resolver does not answer
)

// Meaning is the meaning of a code beyond its message. An unknown code of a later
// version has the zero Meaning.
type Meaning struct {
	// OfNetwork means that the problem is about the current network, and ends when the
	// node leaves it.
	OfNetwork bool
	// Broken means that something does not work, as opposed to not well or not for
	// long.
	Broken bool
	// Explained means that a check of doctor explains it better.
	Explained bool
	// Cure is the command or action that fixes it; "" if the message says it. PORT
	// stands for what the code is about: use Health.Cure to show it.
	Cure string
}

const tellOwner = "tell the owner of the server what is said above"

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
	CodeSignIn:            {OfNetwork: true},
	CodeSignInOverdue:     {OfNetwork: true, Broken: true},
	CodeRoutes:            {OfNetwork: true, Cure: "ip route; remove what overlaps with the overlay's addresses"},
	CodeStateDirectory:    {OfNetwork: true, Cure: "df and ls -ld on the state directory; make room or give it to weft's user"},

	CodeJoinWaiting:  {Broken: true, Cure: "weft up TOKEN, with a new token if this one has expired"},
	CodeClock:        {Cure: "timedatectl set-ntp true"},
	CodeFIPS:         {Cure: "weft doctor --fips says what is in the module and what is not"},
	CodeUDPPortTaken: {},

	CodeTun:              {},
	CodeTunDown:          {},
	CodeTunUnguarded:     {},
	CodeTunGuardRemoved:  {Cure: "nothing; to keep it from happening, do not flush all rules of nftables (list only your own tables in /etc/nftables.conf)"},
	CodeTunNoIPv6:        {},
	CodeIPv4Blocked:      {Cure: "the command at the end of the warning; the other program may remove the rule again when it restarts"},
	CodeRouteOverlap:     {},
	CodeInboundPortTaken: {Cure: "stop the program on port PORT, see: ss -lntup"},

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

// Of is the code with what it is about, a port or a device, for problems that can occur
// several times at once. List separates them again, as Health.Of.
func (c Code) Of(what string) Code { return c + ":" + Code(what) }

// Cut splits a code into the code of the table and what it is about, if anything.
func (c Code) Cut() (code Code, of string) {
	word, of, _ := strings.Cut(string(c), ":")
	return Code(word), of
}

// Meaning returns the meaning of the code.
func (c Code) Meaning() Meaning {
	code, _ := c.Cut()
	return meanings[code]
}
